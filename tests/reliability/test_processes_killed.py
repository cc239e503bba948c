"""`kill -9` of one of several processes, at random times, until the run is finished."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from minigpt_cli.errors import CheckpointError
from minigpt_cli.runs.checkpoint import read_tensors
from minigpt_cli.training.state import TrainState, from_json
from tests.helpers.programs import PATIENCE, Program
from tests.helpers.seeds import seed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

KILLS = 5
TRAIN = [
    "train", "story.txt", "--preset", "tiny", "--device", "cpu", "--max-iters", "300",
    "--set", "train.precision=fp32", "--set", "train.sample_tokens=0", "--set", "train.threads=1",
    "--set", "train.grad_accum_steps=2", "--set", "train.save_every_seconds=0.2",
]  # fmt: skip


def saved(run: Path) -> TrainState | None:
    try:
        return from_json(read_tensors(run / "state.safetensors")[1]["state"])
    except CheckpointError:  # not there yet
        return None


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def home(tmp_path: Path, story: str) -> Path:
    (tmp_path / "story.txt").write_text(story, encoding="utf-8")
    return tmp_path


def test_killed_processes_are_restarted_and_leave_no_trace(home: Path) -> None:
    chance, run, killed_at = random.Random(seed()), home / "run", [-1]
    log = (home / "torchrun.txt").open("w")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts",
        str(KILLS + 1), "-m", "minigpt_cli", *TRAIN, "--out", "run", "--continue",
    ]  # fmt: skip
    with log, subprocess.Popen(command, cwd=home, stdout=log, stderr=log) as torchrun:
        try:
            end = time.monotonic() + PATIENCE
            while torchrun.poll() is None:
                assert time.monotonic() < end, (home / "torchrun.txt").read_text()
                state, ranks = saved(run), children(torchrun.pid)
                due = len(killed_at) <= KILLS and len(ranks) == 2
                if due and state is not None and state.step > killed_at[-1]:
                    time.sleep(chance.random() / 2)
                    with suppress(ProcessLookupError):  # it has just ended
                        os.kill(chance.choice(ranks), signal.SIGKILL)
                        killed_at.append(state.step)
                time.sleep(0.05)
        finally:
            torchrun.kill()
    assert torchrun.returncode == 0, (home / "torchrun.txt").read_text()
    assert len(killed_at) == KILLS + 1
    with Program(home, *TRAIN, "--out", "alone") as alone:
        assert alone.finished() == 0, alone.stderr
    ours, theirs = (read_tensors(home / name / "state.safetensors")[0] for name in ("run", "alone"))
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize("victim", [0, 1])
def test_others_end_with_one_line(home: Path, victim: int) -> None:
    run = home / "run"
    with Program(home, *TRAIN, "--max-iters", 5000, "--processes", 2, "--out", run) as program:
        assert program.wait_until(lambda: "bits/byte" in program.stderr)
        both = children(program.process.pid)
        os.kill(both[victim], signal.SIGKILL)
        assert program.finished() == 1
        lines = program.stderr.splitlines()
    assert lines[-1] == (
        f"error: another process of this run ended; resume with minigpt train --resume {run}"
        if victim
        else "error: process 0 of this run was ended by SIGKILL; resume it with --resume"
    )
    assert lines[-2].strip()[0].isdigit()  # nothing but the row of an evaluation before it
    assert not any(Path(f"/proc/{child}").exists() for child in both)


def test_others_save_and_end_when_the_process_that_started_them_is_killed(home: Path) -> None:
    run = home / "run"
    with Program(home, *TRAIN, "--max-iters", 50_000, "--processes", 2, "--out", run) as program:
        assert program.wait_until(lambda: "bits/byte" in program.stderr)
        both = children(program.process.pid)
    end = time.monotonic() + PATIENCE
    while any(is_running(child) for child in both):
        assert time.monotonic() < end
        time.sleep(0.1)
    state = saved(run)
    assert state is not None
    assert state.step > 0


def is_running(pid: int) -> bool:
    """Whether a process is there and has not ended; in a container nobody may wait for it."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_processes_that_share_the_weights_end_well(home: Path) -> None:
    # Gloo's threads, which FSDP2 keeps, once needed an interpreter that was shutting down: SIGABRT.
    for attempt in range(8):
        short = ["--max-iters", 3, "--set", "distributed.strategy=fsdp", "--out", f"run{attempt}"]
        with Program(home, *TRAIN, *short, "--processes", 2) as program:
            assert program.finished() == 0, program.stderr
