"""Ways to call the program as its users do, in a folder where a run has already been trained."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from minigpt_cli.cli.app import app
from tests.helpers.callers import Minigpt, Misused, Program, Refused


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
def misused(minigpt: Minigpt) -> Misused:
    """Runs a command that must end in a usage error, and returns what it says in one line."""

    def run(*arguments: object, stdin: str | bytes | None = None) -> str:
        result = minigpt(*arguments, stdin=stdin)
        assert (result.exit_code, result.stdout) == (2, "")
        return " ".join(result.stderr.replace("│", " ").split())

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
