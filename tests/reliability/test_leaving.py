"""However a program is ended, it answers, saves, and leaves nothing running or half-written."""

import errno
import os
import pty
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from filelock import FileLock

from minigpt_cli.errors import CheckpointError, OutOfMemoryError
from minigpt_cli.runs.folder import RunFolder
from minigpt_cli.runs.metrics import StepRow
from minigpt_cli.runs.run import Run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs signals")

TRAIN = [
    sys.executable, "-m", "minigpt_cli", "train", "--preset", "tiny", "--data", "story.txt",
    "--out", "run", "--device", "cpu", "--max-iters", "100000", "--set", "train.precision=fp32",
]  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, story: str) -> Path:
    (tmp_path / "story.txt").write_text(story, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def wait_for(condition: object, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def has_stepped() -> bool:
    metrics = Path("run/metrics.jsonl")
    return metrics.exists() and '"type": "step"' in metrics.read_text()


@pytest.mark.parametrize(("name", "code"), [("SIGHUP", 129), ("SIGTERM", 143), ("SIGINT", 130)])
def test_every_ending_signal_saves_and_is_answered(home: Path, name: str, code: int) -> None:
    process = subprocess.Popen(TRAIN, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(has_stepped)
    process.send_signal(getattr(signal, name))
    _, told = process.communicate(timeout=60)
    assert process.returncode == code, told
    assert "finishing this step" in told or name == "SIGHUP"  # then nobody is there to read it
    assert "Traceback" not in told
    assert RunFolder(Path("run")).state.exists()


def test_terminal_sees_the_answer_and_no_bar_stays(home: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(TRAIN, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    is_sent = False
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # Linux: the other side was closed
            break
        if not is_sent and has_stepped():
            process.send_signal(signal.SIGINT)
            is_sent = True
    assert process.wait(60) == 130
    assert "finishing this step" in shown.decode()
    assert shown.decode().rstrip().splitlines()[-1].startswith("  minigpt train --resume run")
    last_bar = shown.rindex(b"tok/s")
    assert b"\x1b[2K" in shown[last_bar:]  # erased


@pytest.mark.slow
def test_terminal_that_vanishes_does_not_end_training(home: Path) -> None:
    ours, theirs = pty.openpty()
    short = [*TRAIN, "--max-iters", "30", "--set", "train.sample_tokens=0"]
    process = subprocess.Popen(short, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=theirs)  # fmt: skip
    os.close(theirs)
    os.read(ours, 64)  # something was shown
    os.close(ours)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"at step 30 of 30" in told or b"of 30" in told


@pytest.mark.parametrize("delay", [0.05, 0.1, 0.2, 0.3])
def test_interrupt_while_starting_is_no_traceback(home: Path, delay: float) -> None:
    program = (
        "import sys, threading, _thread, os, signal\n"
        f"threading.Timer({delay}, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "sys.argv = ['minigpt', *sys.argv[1:]]\n"
        "from minigpt_cli.__main__ import main\nmain()\n"
    )
    command = [sys.executable, "-c", program, *TRAIN[3:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_download_leaves_no_process_behind(home: Path, name: str) -> None:
    fake = home / "python"
    fake.write_text(f"#!/bin/sh\necho $$ > {home}/child\nexec sleep 600\n")
    fake.chmod(0o755)
    program = (
        "import sys\n"
        "from minigpt_cli.data.corpora import download\n"
        f"download.sys = type('', (), {{'executable': {str(fake)!r}}})\n"
        "from minigpt_cli.__main__ import main\nmain()\n"
    )
    command = [sys.executable, "-c", program, "tokenize", "--data-dir", "d"]
    process = subprocess.Popen(command, env={**os.environ, "https_proxy": "http://127.0.0.1:9"},
                               stderr=subprocess.DEVNULL)  # fmt: skip
    child = home / "child"
    wait_for(lambda: child.exists() and child.read_text().strip())
    time.sleep(1.0)  # until the parent, on a busy machine, has returned from starting it too
    process.send_signal(getattr(signal, name))
    assert process.wait(60) == 128 + getattr(signal, name)
    with pytest.raises(ProcessLookupError):
        os.kill(int(child.read_text()), 0)


def test_run_without_memory_for_its_first_step_frees_its_name(home: Path) -> None:
    with pytest.raises(OutOfMemoryError), Run.new("tiny") as run:  # noqa: PT012
        run.folder.write_config("")
        run.folder.state.touch()
        raise OutOfMemoryError("out of memory")
    assert not Path("runs/tiny").exists()


def test_run_that_runs_out_of_memory_later_is_kept(home: Path) -> None:
    with pytest.raises(OutOfMemoryError), Run.new("tiny") as run:  # noqa: PT012
        run.folder.append_metrics([StepRow(1, 2.0)])
        run.folder.state.touch()
        raise OutOfMemoryError("out of memory")
    assert Path("runs/tiny/state.safetensors").exists()


def test_report_that_was_killed_half_written_is_swept(home: Path) -> None:
    folder = RunFolder(home)
    left, fresh = home / ".report.html.abcdefgh.part", home / ".report.html.12345678.part"
    left.mkdir()
    fresh.mkdir()  # of another process, which is writing now
    os.utime(left, (0, 0))
    folder.write_report("<p>")
    assert (left.exists(), fresh.exists()) == (False, True)


def test_file_system_without_locks_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", fail)
    with pytest.raises(CheckpointError) as caught, Run.new("tiny"):
        pass
    assert "its file system has no locks" in str(caught.value)
    assert "free some space" not in str(caught.value)


def test_lock_without_flock_warns_nobody(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", fail)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Run.new("tiny") as run:
            assert run.folder.path.is_dir()
