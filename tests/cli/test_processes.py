"""`--processes`, `--continue`, and what is said, once, by several processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import Result

from minigpt_cli.runs.checkpoint import read_tensors
from tests.helpers.callers import Minigpt
from tests.helpers.programs import PATIENCE, Program
from tests.helpers.ranks import environment, free_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

SHORT = [
    "train", "story.txt", "--preset", "tiny", "--device", "cpu", "--set", "train.precision=fp32",
    "--set", "train.sample_tokens=0",
]  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, story: str) -> Path:
    (tmp_path / "story.txt").write_text(story, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def children(program: Program) -> list[int]:
    pid = program.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_signal_to_one_process_saves_the_run_and_it_can_be_continued(
    home: Path, minigpt: Minigpt
) -> None:
    run = Path("run")
    with Program(home, *SHORT, "--max-iters", 3000, "--processes", 2, "--out", run) as program:
        assert program.wait_until((run / "state.safetensors").exists), program.stderr
        assert program.wait_until(lambda: "Output" in program.stderr)
        both = children(program)
        os.kill(both[1], signal.SIGTERM)
        assert program.finished() == 143, program.stderr
    assert not any(Path(f"/proc/{child}").exists() for child in both)
    for line in ("Output: run", "and saved. To continue:"):
        assert program.stderr.count(line) == 1
    assert program.stdout.count("checkpoint.safetensors") == 1
    assert "threads = 1" in (run / "config.toml").read_text()
    assert '"processes": 2, "strategy": "ddp"' in (run / "metrics.jsonl").read_text()

    saved = read_tensors(run / "state.safetensors")[1]["state"]
    step = int(saved.partition('"step": ')[2].partition(",")[0])
    again = [*SHORT, "--max-iters", str(step + 2), "--out", "run", "--continue"]
    result = minigpt(*again)
    assert result.exit_code == 0, result.output
    assert f"Resuming run at step {step:,}" in result.stderr
    finished = minigpt(*again)
    assert finished.exit_code == 0
    assert finished.stderr.splitlines()[-1] == f"run: already finished, at step {step + 2}"


def test_continue_starts_a_run_that_is_not_there(home: Path, minigpt: Minigpt) -> None:
    command = [*SHORT, "--max-iters", "2", "--out", "new", "--continue"]
    first, second = minigpt(*command), minigpt(*command)
    assert first.exit_code == second.exit_code == 0
    assert "Output: new" in first.stderr
    assert second.stderr.splitlines()[-1] == "new: already finished, at step 2"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--continue"], "--continue needs --out"),
        (["--continue", "--out", "x", "--resume"], "--continue cannot be combined"),
        (["--continue", "--out", "x", "--dry-run"], "--continue cannot be combined"),
        (["--processes", "0"], "--processes"),
    ],
)
def test_contradicting_options_are_usage_errors(
    home: Path, minigpt: Minigpt, options: list[str], said: str
) -> None:
    result: Result = minigpt("train", *options)
    assert result.exit_code == 2
    assert said in result.stderr


def test_restarts_need_a_run_to_return_to(
    home: Path, minigpt: Minigpt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    result = minigpt(*SHORT)
    assert result.exit_code == 2
    assert "torchrun --max-restarts needs --out" in result.stderr


def test_restarted_command_continues_its_run(
    home: Path, minigpt: Minigpt, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*SHORT, "--max-iters", "2", "--out", "new"]
    assert minigpt(*command).exit_code == 0
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert minigpt(*command).exit_code == 0


# --- Mistakes: one line, from rank 0 alone, and exit status 1 everywhere -------------------------


def by_hand(home: Path, options: list[list[str]], port: int | None = None) -> list[tuple[int, str]]:
    """Runs `train` as the ranks of a group, each with its own options: status and stderr."""
    port = port or free_port()
    size = len(options)
    programs = [
        subprocess.Popen(
            [sys.executable, "-m", "minigpt_cli", *SHORT, *own],
            cwd=home,
            env={**os.environ, **environment(rank, size, port)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        for rank, own in enumerate(options)
    ]
    try:
        ended = [program.communicate(timeout=PATIENCE)[1] for program in programs]
    finally:
        for program in programs:
            program.kill()
    return [(p.returncode, err) for p, err in zip(programs, ended, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([["--batch-size", "4"], ["--batch-size", "8"]],
         "error: process 1 of 2: train.batch_size is 4 in process 0 and 8 in process 1; use the"),
        ([["--batch-size", "1"]] * 2,
         "error: train.batch_size × train.grad_accum_steps = 1 sequences per step cannot be"),
        ([[], ["--preset", "nothing.toml"]],
         "error: process 1 of 2: nothing.toml: no such"),
    ],
)  # fmt: skip
def test_mistake_is_one_line_from_rank_0(home: Path, options: list[list[str]], said: str) -> None:
    (first, shown), (second, silent) = by_hand(home, options)
    assert (first, second) == (1, 1)
    assert silent == ""
    lines = [line for line in shown.splitlines() if not line.startswith("Taken as")]
    assert len(lines) == 1
    assert lines[0].startswith(said)
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


@pytest.mark.slow
def test_port_in_use_is_one_line(home: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        env = {**os.environ, **environment(0, 2, port)}
        result = subprocess.run(
            [sys.executable, "-m", "minigpt_cli", *SHORT], cwd=home, env=env, capture_output=True,
            encoding="utf-8",
        )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        f"error: 127.0.0.1:{port}: the processes cannot meet here (the port is in use); choose "
        "another port with MASTER_PORT"
    )
