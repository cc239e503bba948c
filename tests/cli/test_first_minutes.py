"""What `minigpt train` says before the first step, and what a run of one's own text is called."""

import json
import re
from pathlib import Path

import pytest

from minigpt_cli.config.loading import load_run_config
from tests.helpers.callers import Minigpt, Refused

TRAIN = ("train", "--device", "cpu", "--set", "train.sample_tokens=0")


def test_time_is_said_before_the_first_step(minigpt: Minigpt) -> None:
    result = minigpt(*TRAIN, "--preset", "tiny", "--data", "story.txt", "--max-iters", 4)
    before, _, _ = result.stderr.partition("train loss")
    assert re.search(r"^Time:   about [\d.]+ (ms|s|min|h)", before, re.MULTILINE)


def test_small_text_is_told_what_suits_it(minigpt: Minigpt) -> None:
    size = ("--batch-size", 64, "--set", "model.block_size=64", "--max-iters", 20)
    result = minigpt(*TRAIN, "--preset", "tiny", "--data", "story.txt", *size)
    note = next(line for line in result.stderr.splitlines() if line.startswith("Note:"))
    assert "--preset auto" in note
    assert "epochs" in note
    again = re.search(r"--max-iters (\d+)", note)
    assert again is not None
    quiet = minigpt(*TRAIN, "--preset", "tiny", "--data", "story.txt", *size[:-1], again[1])
    assert "Note:" not in quiet.stderr


def test_preset_auto_trains_and_says_why(minigpt: Minigpt) -> None:
    result = minigpt(*TRAIN, "--preset", "auto", "--data", "story.txt", "--max-iters", 3)
    assert result.exit_code == 0, result.output
    assert "Preset auto: 2 layers, 64 wide" in result.stderr
    assert load_run_config("runs/story/config.toml").train.max_iters == 3
    assert minigpt("train", "--resume", "runs/story", "--max-iters", 4).exit_code == 0


def test_runs_of_ones_own_text_are_named_after_it(minigpt: Minigpt) -> None:
    Path("story.txt").rename("diary.txt")
    quick = ("--preset", "tiny", "--max-iters", 1, "--data", "diary.txt")
    assert "runs/diary/" in minigpt(*TRAIN, *quick).stdout
    assert "runs/diary-2/" in minigpt(*TRAIN, *quick).stdout
    again = minigpt("train", "--preset", "runs/diary/config.toml")
    assert "runs/diary-3/" in again.stdout


def test_early_end_is_said_and_resuming_it_tells_how(minigpt: Minigpt, refused: Refused) -> None:
    settings = ("patience=1", "eval_interval=1", "max_iters=50")
    options = [word for setting in settings for word in ("--set", f"train.{setting}")]
    wild = ("--learning-rate", 9, "--set", "optimizer.adamw_learning_rate=9.0")
    result = minigpt(*TRAIN, "--preset", "tiny", "--data", "story.txt", *options, *wild)
    assert result.exit_code == 0, result.output
    assert "train.patience" in result.stdout
    assert "ended early" in result.stdout
    message = refused("train", "--resume", "runs/story")
    assert "ended early" in message
    assert "--set train.patience=0" in message
    listed = {run["path"]: run for run in json.loads(minigpt("inspect", "runs", "--json").stdout)}
    assert listed["runs/story"]["finished"] is listed["runs/story"]["ended_early"] is True
    assert listed["runs/tiny"]["ended_early"] is False


@pytest.mark.parametrize(("steps", "jumps"), [(2000, True), (21, False)])
def test_jump_of_the_learning_rate_is_said(minigpt: Minigpt, steps: int, jumps: bool) -> None:
    stop = ("--set", "train.eval_interval=5000", "--set", "train.eval_tokens=64")
    from minigpt_cli.training.trainer import Trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_is_finished", lambda self: True)
        result = minigpt("train", "--resume", "runs/tiny", "--max-iters", steps, *stop)
    assert ("The learning rate jumps from" in result.stderr) == jumps
