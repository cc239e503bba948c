"""`minigpt train --lora-rank`, and every command on the run that it leaves."""

import json
from pathlib import Path

import pytest
import torch

from minigpt_cli.config.loading import load_run_config
from minigpt_cli.runs.checkpoint import load_checkpoint
from tests.helpers.callers import Minigpt, Misused, Refused

FAST = ("--max-iters", 4, "--batch-size", 2, "--device", "cpu", "--precision", "fp32",
        "--set", "train.eval_interval=2", "--set", "train.sample_tokens=4")  # fmt: skip
TRAIN = ("train", "--data", "story.txt", "--init-from", "runs/tiny", "--out", "runs/tuned", *FAST)


@pytest.mark.slow
def test_a_run_of_adapters_is_a_run_like_any_other(minigpt: Minigpt) -> None:
    result = minigpt(*TRAIN, "--lora-rank", 4)
    assert result.exit_code == 0, result.output
    n, hidden = 32, 128  # width, and that of the feed-forward layers
    adapters = 2 * 4 * ((3 * n + 3 * n) + (n + n) + (2 * n + 2 * hidden) + (hidden + n))
    whole = json.loads(minigpt("inspect", "runs/tiny/checkpoint.safetensors", "--json").stdout)
    assert f"{whole['parameters']:,} parameters" in result.stderr
    assert f"; {adapters:,} trained in adapters" in result.stderr
    config = load_run_config("runs/tuned/config.toml")
    assert config.lora is not None
    assert (config.lora.rank, config.lora.alpha) == (4, 16.0)
    assert (config.optimizer.name, config.optimizer.learning_rate) == ("adamw", 0.001)
    saved = load_checkpoint(Path("runs/tuned/checkpoint.safetensors"))
    base = load_checkpoint(Path("runs/tiny/checkpoint.safetensors")).model.state_dict()
    for name, weight in saved.model.state_dict().items():
        changed = name.startswith("blocks.") and weight.dim() == 2
        assert weight.equal(base[name]) != changed, name
    for command in (
        ("generate", "-c", "runs/tuned", "-n", 5),
        ("generate", "-c", "runs/tuned/state.safetensors", "-n", 5),
        ("eval", "runs/tuned"),
        ("inspect", "runs/tuned"),
        ("inspect", "gradients", "-c", "runs/tuned"),
        ("inspect", "gradients", "-c", "runs/tuned/state.safetensors"),
        ("inspect", "batch", 2, "runs/tuned"),
        ("inspect", "next", "The", "-c", "runs/tuned"),
        ("inspect", "report", "runs/tuned"),
        ("export", "runs/tuned", "model", "--to", "hf"),
        ("export", "runs/tuned", "adapters", "--to", "peft"),
        ("export", "runs/tuned", "page.html", "--to", "html"),
        ("train", "--resume", "runs/tuned", "--max-iters", 6),
    ):
        result = minigpt(*command)
        assert result.exit_code == 0, (command, result.output)
    card = Path("model/README.md").read_text(encoding="utf-8")
    assert "finetuned by low-rank adapters" in card
    assert "minigpt train --preset run.toml --init-from BASE" in card
    page = Path("page.html").read_text(encoding="utf-8")
    shown = page.split('"command":"')[1].split('"')[0]
    assert shown.startswith("minigpt train --preset lora --init-from BASE --data story.txt")
    assert "--set lora.rank=4" in shown
    assert "tokenizer" not in shown
    assert "n_layer" not in shown


def test_inspect_counts_the_model_without_its_adapters(minigpt: Minigpt) -> None:
    assert minigpt(*TRAIN, "--lora-rank", 4).exit_code == 0
    counts = {}
    for run in ("tiny", "tuned"):
        shown = json.loads(
            minigpt("inspect", f"runs/{run}/checkpoint.safetensors", "--json").stdout
        )
        counts[run] = shown["parameters"], shown["components"]
    assert counts["tiny"] == counts["tuned"]
    shown = minigpt("inspect", "runs/tuned/checkpoint.safetensors").stdout
    assert "rank 4" in shown


def test_a_preset_has_the_usual_adapters(minigpt: Minigpt) -> None:
    assert minigpt(*TRAIN, "--preset", "lora").exit_code == 0
    lora = load_run_config("runs/tuned/config.toml").lora
    assert lora is not None
    assert lora.rank == 8
    again = minigpt(
        "train", "--preset", "runs/tuned/config.toml", "--init-from", "runs/tiny", "--out", "again"
    )
    assert again.exit_code == 0, again.output
    one, other = (
        load_checkpoint(Path(run, "checkpoint.safetensors")).adapters
        for run in ("runs/tuned", "again")
    )
    assert one.keys() == other.keys()
    assert all(other[name].equal(tensor) for name, tensor in one.items())


def test_targets_are_chosen_by_name(minigpt: Minigpt, refused: Refused) -> None:
    targets = ("--set", 'lora.targets=["q", "v"]')
    assert minigpt(*TRAIN, *targets).exit_code == 0
    saved = load_checkpoint(Path("runs/tuned/checkpoint.safetensors"))
    assert {name.split(".", 2)[2] for name in saved.adapters} == {
        "attention.qkv.lora_a", "attention.qkv.lora_b"
    }  # fmt: skip
    assert "lora.targets[0]" in refused(*TRAIN, "--set", 'lora.targets=["query"]')


def test_what_adapters_cannot_do_is_refused(refused: Refused, misused: Misused) -> None:
    assert "only valid with --init-from" in misused("train", "story.txt", "--lora-rank", 4)
    alone = ("train", "--data", "story.txt", "--preset", "lora")
    assert "name it with --init-from" in refused(*alone)
    message = refused(*TRAIN, "--lora-rank", 4, "--preset", "tiny")
    assert message.startswith("optimizer.name = muon: adapters are trained with AdamW")
    assert "optimizer.name=adamw" in message
    assert "larger than the matrices" in refused(*TRAIN, "--lora-rank", 5000)
    message = refused(*TRAIN, "--lora-rank", 4, "--freeze", "blocks.*")
    assert "no such matrix is left to adapt" in message


def test_a_resumed_run_keeps_its_rank(minigpt: Minigpt, refused: Refused) -> None:
    assert minigpt(*TRAIN, "--lora-rank", 4).exit_code == 0
    message = refused("train", "--resume", "runs/tuned", "--max-iters", 6, "--lora-rank", 8)
    assert "lora.rank was 4, now 8" in message


@pytest.mark.filterwarnings("ignore")  # other programs' own
@pytest.mark.parametrize("family", ["gpt2", "qwen3", "llama"])
def test_adapters_trained_here_open_on_the_original_folder(
    family: str, home: Path, minigpt: Minigpt
) -> None:
    pytest.importorskip("peft", reason="needs peft: pip install -e '.[test]'")
    from peft import PeftModel

    from tests.helpers.transformers_models import saved

    (home / "base").mkdir()
    theirs, tokenizer = saved(family, home / "base")
    for arguments in (
        ("train", "story.txt", "--init-from", "base", "--lora-rank", 2, "--out", "runs/tuned",
         "--max-iters", 4, "--batch-size", 2, "--device", "cpu", "--precision", "fp32",
         "--set", "model.block_size=32", "--set", "train.sample_tokens=4"),
        ("export", "runs/tuned", "adapters", "--to", "peft"),
    ):  # fmt: skip
        result = minigpt(*arguments)
        assert result.exit_code == 0, result.output
    ours = load_checkpoint(Path("runs/tuned/checkpoint.safetensors"))
    ids = tokenizer("The old heron", return_tensors="pt").input_ids
    with torch.inference_mode():
        logits = ours.model(ids)
        model = PeftModel.from_pretrained(theirs, home / "adapters").eval()
        difference = model(ids).logits[..., : ours.tokenizer.vocab_size] - logits
        assert difference.abs().max() < 1e-5
        with model.disable_adapter():
            before = model(ids).logits[..., : ours.tokenizer.vocab_size]
        assert (before - logits).abs().max() > 1e-5


def test_what_has_no_adapters_is_refused(refused: Refused, home: Path) -> None:
    message = refused("export", "runs/tiny", "adapters", "--to", "peft")
    assert message.startswith("the model was trained without adapters")
    assert "--lora-rank" in message
    (home / "adapters").mkdir()
    message = refused("export", "runs/tiny", "adapters", "--to", "peft")
    assert message.startswith("adapters: already exists; replace it with --force")
