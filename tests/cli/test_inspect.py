"""`minigpt inspect`: every number it prints, computed another way."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from minigpt_cli.runs.checkpoint import load_checkpoint
from tests.helpers.callers import Minigpt, Program, Refused

FILE = "runs/tiny/checkpoint.safetensors"


def summary_of(text: str) -> dict[str, str]:
    """The names and values of the upper table."""
    lines = text.partition("\n\n")[0].splitlines()
    return dict(re.findall(r"^(\S.*?) {2,}(.*?) *$", "\n".join(lines), re.MULTILINE))


def test_summary_agrees_with_the_file_and_the_model(minigpt: Minigpt) -> None:
    result = minigpt("inspect", FILE)
    loaded = load_checkpoint(Path(FILE))
    found, known = summary_of(result.stdout), loaded.metadata
    assert result.stderr == ""
    assert found["file"] == FILE
    assert found["size on disk"] == f"{Path(FILE).stat().st_size / 1000:.1f} kB"
    assert found["family"] == "modern"
    assert found["size"] == "2 layers, 2 heads, 32 wide, block 32"
    assert found["tokenizer"] == f"char, vocabulary {loaded.tokenizer.vocab_size}"
    assert found["corpus"] == f"story (fingerprint {known.fingerprint})"
    assert Path("data", "story", known.fingerprint).is_dir()
    assert found["step"] == "20"
    rows = [json.loads(line) for line in Path("runs/tiny/metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["type"] == "evaluation"][-1]
    assert found["loss"] == (
        f"train {last['train_loss']:.4f}, validation {last['val_loss']:.4f}, "
        f"{last['bits_per_byte']:.3f} bits per byte"
    )
    parameters = sum(p.numel() for p in loaded.model.parameters())
    assert found["parameters"] == f"{parameters:,}"


def test_component_shares_add_up(minigpt: Minigpt) -> None:
    lines = minigpt("inspect", FILE).stdout.splitlines()
    shares = [float(found[1]) for line in lines if (found := re.search(r"([\d.]+)%", line))]
    counts = [
        int(found[1].replace(",", ""))
        for line in lines
        if (found := re.search(r" F32 +([\d,]+) ", line))
    ]
    model = load_checkpoint(Path(FILE)).model
    assert sum(counts) == sum(p.numel() for p in model.parameters())
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert shares == [round(100 * n / sum(counts), 1) for n in counts]


@pytest.mark.parametrize("given", [(), ("checkpoint.safetensors",)])
def test_newest_run_is_taken_and_named(minigpt: Minigpt, given: tuple[str, ...]) -> None:
    result = minigpt("inspect", *given)
    assert result.stderr == f"Using {FILE}\n"
    assert result.stdout == minigpt("inspect", FILE).stdout


def test_json_agrees_with_the_table_and_names_every_tensor(minigpt: Minigpt) -> None:
    found = json.loads(minigpt("inspect", FILE, "--json").stdout)
    table = summary_of(minigpt("inspect", FILE).stdout)
    model = load_checkpoint(Path(FILE)).model
    assert f"{found['parameters']:,}" == table["parameters"]
    assert f"{found['flops_per_token']:,}" in table["FLOPs per token"]
    assert found["file_bytes"] == Path(FILE).stat().st_size
    assert {t["name"]: tuple(t["shape"]) for t in found["tensors"]} == {
        name: tuple(weight.shape) for name, weight in model.state_dict().items()
    }
    assert sum(c["parameters"] for c in found["components"]) == found["parameters"]
    assert found["checkpoint"]["model"] == model.config.model_dump(mode="json")
    assert found["checkpoint"]["step"] == 20


def test_every_tensor_is_listed_when_asked(minigpt: Minigpt) -> None:
    text = minigpt("inspect", FILE, "--tensors").stdout
    for name, weight in load_checkpoint(Path(FILE)).model.state_dict().items():
        shape = "x".join(map(str, weight.shape))
        assert re.search(rf"{re.escape(name)} +{shape} +F32 +{weight.numel():,} ", text)


def test_another_programs_file_is_listed_with_its_names_escaped(
    minigpt: Minigpt, home: Path
) -> None:
    tensors = {"[red]w[/red]": torch.zeros(4, 2), "\x1b[2Jclear": torch.tensor(1).half()}
    save_file(tensors, home / "foreign.safetensors", {"[bold]by": "x" * 500})
    result = minigpt("inspect", "foreign.safetensors")
    assert result.exit_code == 0
    assert summary_of(result.stdout)["made by"] == "another program"
    assert re.search(r"\[red\]w\[/red\] +4x2 +F32 +8 +88.9%", result.stdout)
    assert re.search(r"\\x1b\[2Jclear +scalar +F16 +1 +11.1%", result.stdout)
    assert "[bold]by" in result.stdout
    assert "\x1b" not in result.stdout


def test_tensors_of_a_run_are_those_of_its_checkpoint(minigpt: Minigpt) -> None:
    of_run = minigpt("inspect", "runs/tiny", "--tensors").stdout
    assert of_run == minigpt("inspect", FILE, "--tensors").stdout


def test_training_state_is_listed_too(minigpt: Minigpt) -> None:
    assert "model.head.weight" in minigpt("inspect", "runs/tiny/state.safetensors").stdout


@pytest.mark.parametrize("length", [0, 5, 300, -1])
def test_truncated_file_is_refused(refused: Refused, length: int) -> None:
    Path("cut.safetensors").write_bytes(Path(FILE).read_bytes()[:length])
    assert refused("inspect", "cut.safetensors").startswith(
        "cut.safetensors: not a safetensors file"
    )


def test_missing_file_is_refused(refused: Refused) -> None:
    assert refused("inspect", "none.safetensors").startswith("none.safetensors: no such file")


def test_torch_is_not_imported(program: Program) -> None:
    result = program("inspect", "checkpoint.safetensors", python=("-X", "importtime"))
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "minigpt_cli.inspection" in imported
    assert not imported & {"torch", "numpy", "tokenizers"}
    assert result.returncode == 0
