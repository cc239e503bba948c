"""The program in a process of its own, to be killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 600.0
"""Seconds after which an idle process counts as hanging."""


class Program:
    """`minigpt` with some arguments, in a folder; its output goes to files there."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.arguments = [str(argument) for argument in arguments]
        self._out = (folder / f"out-{time.monotonic_ns()}.txt").open("wb+")
        self._err = (folder / f"err-{time.monotonic_ns()}.txt").open("wb+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "minigpt_cli", *self.arguments],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
        )

    @property
    def stdout(self) -> str:
        return Path(self._out.name).read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        return Path(self._err.name).read_text(encoding="utf-8")

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def wait_until(self, condition: Callable[[], object]) -> bool:
        """Whether the condition came true before the process ended."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if not self.running:
                return False
            assert time.monotonic() < end, self.stderr
            time.sleep(0.005)
        return True

    def kill(self) -> None:
        """Sends SIGKILL, unless the process has ended by itself."""
        if self.running:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._close()

    def finished(self) -> int:
        """Waits for the end; returns the exit status."""
        status = self.process.wait(PATIENCE)
        self._close()
        return status

    def _close(self) -> None:
        self._out.close()
        self._err.close()

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: Any) -> None:
        self.kill()


def on_a_terminal(*arguments: str, **env: str) -> tuple[int, bytes]:
    """Runs the program on a pseudoterminal; returns its exit status and what it shows there."""
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "minigpt_cli", *arguments],
        stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm-256color", **env},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the terminal closes when its last writer exits
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    return process.wait(), shown
