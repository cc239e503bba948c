"""SIGINT and SIGTERM finish the current step, save, and say how to resume."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from safetensors import safe_open

from minigpt_cli.training.state import saved_run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs signals")

TRAIN = [
    "train", "--preset", "tiny", "--data", "story.txt", "--out", "run", "--device", "cpu",
    "--max-iters", "30", "--set", "train.precision=fp32", "--set", "train.sample_tokens=0",
    "--set", "train.eval_interval=10",
]  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, story: str) -> Path:
    (tmp_path / "story.txt").write_text(story, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_with(patch: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs the program after a few lines that patch it."""
    program = textwrap.dedent(patch) + "\nfrom minigpt_cli.__main__ import main\nmain()\n"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, encoding="utf-8"
    )


def saved_step() -> int:
    with safe_open("run/state.safetensors", "pt") as file:
        found = re.search(r'"step": (\d+)', file.metadata()["state"])
    assert found is not None
    return int(found[1])


INSIDE_A_SAVE = """
    import os, signal
    from minigpt_cli.runs import checkpoint
    from minigpt_cli.training import trainer
    real, calls = checkpoint.save_file, iter(range(100))
    def save_file(*arguments):
        if next(calls) == {call}:
            for _ in range({times}):
                os.kill(os.getpid(), signal.{name})
        return real(*arguments)
    checkpoint.save_file = save_file
"""


@pytest.mark.parametrize(
    ("name", "code", "call", "step"),
    [
        pytest.param("SIGTERM", 143, 0, 0, marks=pytest.mark.slow),
        pytest.param("SIGTERM", 143, 1, 10, marks=pytest.mark.slow),
        ("SIGINT", 130, 2, 10),
    ],
)
def test_signal_within_a_save_lets_it_be_completed(
    home: Path, name: str, code: int, call: int, step: int
) -> None:
    result = run_with(INSIDE_A_SAVE.format(call=call, name=name, times=1), *TRAIN)
    assert result.returncode == code, result.stderr
    assert f"Stopped at step {step} and saved. To continue:\n  minigpt train --resume run" in (
        result.stderr
    )
    assert saved_step() == step
    assert sorted(p.name for p in Path("run").iterdir()) == [
        "checkpoint.safetensors", "config.toml", "metrics.jsonl", "run.lock", "state.safetensors",
    ]  # fmt: skip


@pytest.mark.slow
def test_second_interrupt_within_a_save_exits_at_once_and_damages_nothing(home: Path) -> None:
    result = run_with(INSIDE_A_SAVE.format(call=2, name="SIGINT", times=2), *TRAIN)
    assert result.returncode == 130
    assert "Traceback" not in result.stderr
    assert "Stopped" not in result.stderr
    assert saved_step() == 0  # the save of step 10 was not completed
    assert saved_run(Path("run/state.safetensors")).config.train.max_iters == 30
    resumed = run_with("", "train", "--resume", "run")
    assert resumed.returncode == 0, resumed.stderr
    assert saved_step() == 30


@pytest.mark.slow
def test_signal_within_an_evaluation_is_obeyed_after_it(home: Path) -> None:
    patch = """
        import os, signal
        from minigpt_cli.training import trainer
        real = trainer.evaluate
        def evaluate(*arguments):
            os.kill(os.getpid(), signal.SIGTERM)
            return real(*arguments)
        trainer.evaluate = evaluate
    """
    result = run_with(patch, *TRAIN)
    assert result.returncode == 143, result.stderr
    assert saved_step() == 10
    assert '"evaluation"' in Path("run/metrics.jsonl").read_text()


def test_signal_before_training_has_begun_ends_the_program_quietly(home: Path) -> None:
    patch = """
        import os, signal
        from minigpt_cli.data.corpora import known_texts
        real = known_texts.read_corpus
        def scan(*arguments):
            os.kill(os.getpid(), signal.SIGINT)
            return real(*arguments)
        known_texts.read_corpus = scan
    """
    result = run_with(patch, *TRAIN)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")
    assert not Path("run").exists()
