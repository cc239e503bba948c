"""A run of the real program, killed at random times, ends like one that never was."""

import json
import os
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt_cli.runs.checkpoint import read_tensors
from minigpt_cli.runs.folder import RunFolder
from tests.helpers.programs import Program
from tests.helpers.seeds import seed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="needs kill -9"),
]
KILLS = int(os.environ.get("MINIGPT_TEST_KILLS", "100"))
STEPS_BETWEEN_KILLS = 40
"""The share of the run that a typical process completes between two kills."""
CLOCK = {"elapsed", "step_seconds", "tokens_per_second", "mfu"}


def train_command(folder: Path, name: str, story: str) -> list[str]:
    (folder / "story.txt").write_text(story, encoding="utf-8")
    settings = [
        f"max_iters={STEPS_BETWEEN_KILLS * KILLS}", "save_every_seconds=0.05", "precision=fp32",
        "eval_interval=100", "log_interval=20", "sample_tokens=4",
    ]  # fmt: skip
    return [
        "train", "--preset", "tiny", "--data", "story.txt", "--out", name, "--device", "cpu",
        *[word for setting in settings for word in ("--set", f"train.{setting}")],
    ]  # fmt: skip


def saved_step(run: RunFolder) -> int | None:
    """The step of the state, which is complete whenever it exists."""
    if not run.state.exists():
        return None
    step: int = json.loads(read_tensors(run.state)[1]["state"])["step"]
    return step


def kill_once(program: Program, run: RunFolder, chance: random.Random) -> None:
    """Kills it at any time after its start, mostly once it has trained and saved."""
    if chance.random() < 0.2:
        time.sleep(chance.uniform(0, 3))
    else:
        before = run.state.stat().st_mtime_ns if run.state.exists() else 0
        program.wait_until(lambda: run.state.exists() and run.state.stat().st_mtime_ns != before)
        time.sleep(chance.uniform(0, 0.2))
    program.kill()


def test_a_run_killed_at_random_times_ends_with_the_same_weights(
    tmp_path: Path, story: str
) -> None:
    sys.stdout.write(f"MINIGPT_TEST_SEED={seed()}\n")
    chance = random.Random(seed())
    with Program(tmp_path, *train_command(tmp_path, "whole", story)) as undisturbed:
        assert undisturbed.wait_until(lambda: False) is False
        assert undisturbed.finished() == 0, undisturbed.stderr

    run, command = RunFolder(tmp_path / "run"), train_command(tmp_path, "run", story)
    kills, known, steps = 0, 0, set()
    while True:
        step = saved_step(run)
        if step is None:  # killed before there was anything to lose
            assert known == 0
            shutil.rmtree(run.path, ignore_errors=True)
        else:
            assert step >= known
            known = step
            steps.add(step)
        with Program(tmp_path, *(command if step is None else ["train", "--resume", "run"])) as p:
            if kills < KILLS:
                kill_once(p, run, chance)
                if p.process.returncode < 0:
                    kills += 1
            elif not p.wait_until(lambda: False):
                p.finished()
            if step is not None and "Resuming" in p.stderr:
                assert f"Resuming run at step {step:,}" in p.stderr
            if p.process.returncode == 0:
                break
            assert p.process.returncode == -9, p.stderr
    sys.stdout.write(f"{kills} kills, resumed at {len(steps)} different steps\n")
    assert kills > KILLS // 2
    assert_same_run(run, RunFolder(tmp_path / "whole"))


def assert_same_run(run: RunFolder, whole: RunFolder) -> None:
    """Everything except what depends on a clock."""
    for mine, reference in ((run.checkpoint, whole.checkpoint), (run.state, whole.state)):
        (tensors, facts), (expected, expected_facts) = read_tensors(mine), read_tensors(reference)
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], expected[name]) for name in expected)
        assert without_clock(facts) == without_clock(expected_facts)
    assert rows(run) == rows(whole)
    assert not [path for path in run.path.iterdir() if path.name.startswith(".")]


def without_clock(metadata: dict[str, str]) -> dict[str, Any]:
    state = json.loads(metadata.get("state", "{}"))
    return {**metadata, "state": {k: v for k, v in state.items() if k not in CLOCK}}


def rows(run: RunFolder) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]
    return [
        {k: v for k, v in line.items() if k not in CLOCK}
        for line in lines
        if line["type"] != "machine"
    ]
