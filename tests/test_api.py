"""The public API: what it holds, that it is lazy, and that it does what the README says."""

import subprocess
import sys
from pathlib import Path

import pytest

import minigpt_cli
from minigpt_cli import Sampling, evaluate, generate, load, train
from minigpt_cli.errors import CheckpointError
from minigpt_cli.runs.metrics import StepRow
from minigpt_cli.training.reporter import Reporter


def test_api_is_these_names() -> None:
    names = ["RunConfig", "Sampling", "evaluate", "generate", "load", "train"]
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
        "data.corpus": ["story.txt"], "train.max_iters": 3, "train.eval_interval": 2,
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
