"""The public API: what it holds, that it is lazy, and that it does what the README says."""

import subprocess
import sys
from pathlib import Path

import pytest

import minigpt_cli
from minigpt_cli import Reporter, Sampling, evaluate, generate, load, train
from minigpt_cli.errors import CheckpointError, ConfigError
from minigpt_cli.interop.hf_export import export_hf
from minigpt_cli.runs.metrics import StepRow
from tests.helpers.exports import CONFIGS, random_checkpoint, tokenizer_of


def test_api_is_these_names() -> None:
    names = ["Reporter", "RunConfig", "Sampling", "evaluate", "generate", "load", "train"]
    assert minigpt_cli.__all__ == names
    assert {*names} <= {*dir(minigpt_cli)}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = minigpt_cli.nothing


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import sys, minigpt_cli; sys.exit(bool({'torch', 'numpy', 'rich'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.usefixtures("no_measuring")
def test_a_model_is_trained_loaded_used_and_measured(
    tmp_path: Path, story: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("story.txt").write_text(story, encoding="utf-8")
    seen: list[int] = []

    class Steps(Reporter):
        def stepped(self, row: StepRow) -> None:
            seen.append(row.step)

    overrides: dict[str, object] = {
        "data.corpus": ["story.txt"], "max_iters": 3, "eval_interval": 2,  # or without a section

        "train.device": "cpu", "train.precision": "fp32", "train.sample_tokens": 0,
    }  # fmt: skip
    result = train("tiny", overrides, out="runs/mine", reporter=Steps())
    assert (result.run, result.finished, seen) == (Path("runs/mine"), True, [1, 2, 3])

    model = load("runs/mine", device="cpu", precision="fp32")
    assert load(device="cpu").metadata == model.metadata  # the newest run
    score = evaluate(model)
    assert score.loss == pytest.approx(model.metadata.val_loss)
    assert evaluate(model, story[:200]).tokens == 199
    pieces = generate(model, "The ", 12, Sampling(seed=1))
    assert len("".join(pieces)) == 12


def test_loading_nothing_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load(tmp_path / "none")


def test_loading_takes_the_last_model_of_a_run_and_a_folder_of_transformers(
    trained_home: Path, tmp_path: Path
) -> None:
    last = load(trained_home / "runs" / "tiny" / "state.safetensors", device="cpu")
    assert last.metadata.step == 20
    checkpoint = random_checkpoint(CONFIGS["modern"], tokenizer_of("byte"))
    export_hf(checkpoint, tmp_path / "hf")
    assert load(tmp_path / "hf", device="cpu").model.config.n_embd == checkpoint.model.config.n_embd


def test_an_unknown_setting_without_its_section_is_one_error() -> None:
    with pytest.raises(ConfigError, match=r"unknown setting max_iterz; did you mean "):
        train("tiny", {"max_iterz": 3})
