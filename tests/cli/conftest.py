"""Ways to call the program as its users do, in a folder where a run has already been trained."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from callers import Minigpt, Program, Refused
from typer.testing import CliRunner, Result

from minigpt_cli.cli.app import app


@pytest.fixture
def home(trained_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the trained home, as the current folder."""
    folder = tmp_path / "home"
    shutil.copytree(trained_home, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def minigpt(home: Path) -> Minigpt:
    """Runs a command in this process; a bug's exception comes through."""

    def run(*arguments: object, stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(
            app, [str(a) for a in arguments], input=stdin, catch_exceptions=False
        )

    return run


@pytest.fixture
def refused(minigpt: Minigpt) -> Refused:
    """Runs a command that must fail as users' mistakes do, and returns the one line it says."""

    def run(*arguments: object, stdin: str | bytes | None = None) -> str:
        result = minigpt(*arguments, stdin=stdin)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        return result.stderr.removeprefix("error: ").rstrip("\n")

    return run


@pytest.fixture
def program(home: Path) -> Program:
    """Runs `python -m minigpt_cli` as a process of its own."""

    def run(*arguments: object, python: tuple[str, ...] = (), **env: str) -> Any:
        command = [sys.executable, *python, "-m", "minigpt_cli", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", env={**os.environ, **env}
        )

    return run


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Makes file permissions hold for root too, as in a container's tests."""
    if not hasattr(os, "geteuid"):
        pytest.skip("needs file permissions")
    if os.geteuid() != 0:
        yield
        return
    if sys.platform != "linux":
        pytest.skip("root ignores file permissions")
    import ctypes

    # capabilities(7): effective, permitted and inheritable, in two words each.
    libc, sets = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 6)()
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    assert libc.capget(header, sets) == 0
    before = sets[0]
    sets[0] &= ~(1 << 1 | 1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, sets) == 0
    try:
        yield
    finally:
        sets[0] = before
        assert libc.capset(header, sets) == 0
