"""A process that ends at a chosen file system call, in the middle of what it was doing."""

import io
import os
import sys
import traceback
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from minigpt_cli.runs import checkpoint

DONE, CRASHED, FAILED = 0, 77, 1
_CHANGES = {"os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}


def crash_at_every_call(
    prepare: Callable[[], None],
    act: Callable[[], None],
    check: Callable[[], None],
    part: int = 0,
    parts: int = 1,
) -> int:
    """Cuts `act` short at each of its file system calls in turn; returns how many there were.

    Args:
        prepare: sets the scene before each attempt.
        act: the action, run in a fork of this process.
        check: inspects what the fork left behind, in this process.
        part: of a test in several parts, which one; each takes every `parts`-th call.
        parts: how many parts cover all calls together.
    """
    for at in count(part, parts):
        prepare()
        code = _in_child(act, at)
        assert code in (DONE, CRASHED)
        check()
        if code == DONE:
            return at
    raise AssertionError


def _in_child(act: Callable[[], None], at: int) -> int:
    child = os.fork()
    if child == 0:
        code = FAILED
        try:
            _arm(at)
            act()
            code = DONE
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _arm(at: int) -> None:
    """Makes the process end at its call number `at`, from 0. Cannot be undone: for a child only."""
    left = at

    def call() -> None:
        nonlocal left
        if left == 0:
            os._exit(CRASHED)
        left -= 1

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            call()

    def fsync(descriptor: int) -> None:
        call()
        real_fsync(descriptor)

    def open_torn(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        opened = real_open(file, mode, *args, **options)
        return opened if mode in ("r", "rb") else TornFile(opened, call)

    def save_file(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        """Writes in pieces; the library writes from Rust, where no call can be counted."""
        data = safetensors.torch.save(tensors, metadata)
        with path.open("wb") as file:
            for start in range(0, len(data), len(data) // 3 + 1):
                file.write(data[start : start + len(data) // 3 + 1])

    real_fsync, real_open = os.fsync, io.open
    assert vars(checkpoint)["save_file"] is safetensors.torch.save_file
    os.fsync, io.open = fsync, open_torn  # type: ignore[assignment]
    vars(checkpoint)["save_file"] = save_file
    sys.addaudithook(audit)


class TornFile:
    """A file whose every write may be cut short before, in the middle, or after it."""

    def __init__(self, file: Any, call: Callable[[], None]) -> None:
        self._file, self._call = file, call

    def write(self, data: Any) -> int:
        half = len(data) // 2
        for part in (data[:half], data[half:]):
            self._call()
            self._file.write(part)
            self._file.flush()
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "TornFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
