"""Which run a command chooses, and what it says of the others."""

import os
import shutil
from pathlib import Path

import pytest

from tests.helpers.callers import Minigpt

GENERATE = ("generate", "-n", 2)


def copied(home: Path, name: str, newer: int, max_iters: int = 20) -> None:
    """A copy of the run `tiny`, written later, with another planned length."""
    folder = home / "runs" / name
    shutil.copytree(home / "runs" / "tiny", folder)
    config = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(
        config.replace("max_iters = 20", f"max_iters = {max_iters}")
    )
    for path in folder.iterdir():
        os.utime(path, (path.stat().st_atime + newer, path.stat().st_mtime + newer))


def test_a_single_run_is_named_and_nothing_else(minigpt: Minigpt) -> None:
    assert minigpt(*GENERATE).stderr == "Using runs/tiny/checkpoint.safetensors\n"


def test_a_good_newest_run_says_how_many_others_there_are(minigpt: Minigpt, home: Path) -> None:
    copied(home, "small", 100)
    said = minigpt(*GENERATE).stderr
    assert said == (
        "Using runs/small/checkpoint.safetensors, the newest; 1 more: minigpt inspect runs\n"
    )


@pytest.mark.parametrize(
    ("name", "max_iters", "doubt"),
    [("small", 30, "unfinished (step 20 of 30)"), ("tiny-2", 20, "a tiny model of ")],
)
def test_an_unfinished_or_tiny_newest_run_is_said_to_be_one(
    minigpt: Minigpt, home: Path, name: str, max_iters: int, doubt: str
) -> None:
    copied(home, "medium", 50)
    copied(home, name, 100, max_iters)
    said = minigpt(*GENERATE).stderr
    assert said.startswith(f"Using runs/{name}/checkpoint.safetensors, the newest: {doubt}")
    assert "another is runs/" in said
    assert said.count("\n") == 1


def test_a_named_run_is_used_without_a_word_about_others(minigpt: Minigpt, home: Path) -> None:
    copied(home, "medium", 50)
    assert minigpt(*GENERATE, "-c", "runs/tiny").stderr == ""


def test_resuming_takes_the_newest_unfinished_run_and_says_so(minigpt: Minigpt, home: Path) -> None:
    copied(home, "long", 50, max_iters=22)
    copied(home, "later", 100)
    said = minigpt("train", "--resume").stderr
    assert said.startswith(
        "The newest run, runs/later, is finished; the newest unfinished one is runs/long\n"
    )
    assert "\nResuming runs/long at step 20\n" in said
    assert "Time:   about " in said
    again = minigpt("train", "--resume")
    assert "already finished" in again.stderr


def test_where_a_run_stopped_is_the_step_of_its_state(minigpt: Minigpt, home: Path) -> None:
    copied(home, "long", 50, max_iters=3000)
    metrics = home / "runs" / "long" / "metrics.jsonl"
    rows = [row for row in metrics.read_text().splitlines() if '"step": 20' not in row]
    metrics.write_text("".join(row + "\n" for row in rows))
    assert "20 of 3,000" in minigpt("inspect", "runs").stdout
    assert "20 of 3,000" in minigpt("inspect", "runs/long").stdout


def test_threads_are_chosen_by_timing_for_every_command_that_computes(
    minigpt: Minigpt, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[float] = []
    monkeypatch.setattr("minigpt_cli.device.choose_threads", lambda work, *_: timed.append(work()))
    for command in ("generate", "-n", 2), ("eval",), ("inspect", "next", "The"):
        assert minigpt(*command).exit_code == 0
    assert len(timed) == 3
    assert min(timed) > 0
