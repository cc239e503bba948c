"""What holds for every test: the same surroundings, hypothesis without a clock, no network."""

import os
import socket
from itertools import product
from pathlib import Path
from typing import Any

# Models this small are many times faster on one thread than on two that wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# No test may depend on how fast the machine is, nor on what it tried the last time.
settings.register_profile("minigpt", deadline=None, derandomize=True, database=None)
settings.load_profile("minigpt")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "network: needs a package index")
    config.addinivalue_line("markers", "browser: needs chromium and chromedriver")
    # Nothing of the developer's terminal and settings shows through.
    for variable in (
        "FORCE_COLOR", "NO_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "PYTHONUNBUFFERED", "MINIGPT_DATA"
    ):  # fmt: skip
        os.environ.pop(variable, None)
    os.environ |= {"COLUMNS": "120", "TERM": "xterm-256color"}


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets tests reach loopback only, and pip no index, unless they are marked `network`."""
    if request.node.get_closest_marker("network"):
        return

    def connect(self: socket.socket, address: Any) -> None:
        loopback = not isinstance(address, tuple) or address[0] in ("127.0.0.1", "::1", "localhost")
        assert loopback, f"a test without the mark `network` reaches for {address}"
        real_connect(self, address)

    real_connect = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture(scope="session")
def story() -> str:
    """A little text of our own, long enough for a tiny model."""
    who = ("The ferryman", "A lamplighter", "My neighbour", "The old heron")
    does = ("counts", "mends", "follows", "forgets")
    what = ("paper boats", "the slow tide", "three green lanterns", "every bridge")
    return "".join(f"{a} {b} {c}, and so do I.\n" for a, b, c in product(who, does, what))


@pytest.fixture(scope="session")
def trained_home(tmp_path_factory: pytest.TempPathFactory, story: str) -> Path:
    """A folder with `story.txt`, its prepared data and a finished run of `tiny`; not to change."""
    from typer.testing import CliRunner

    from minigpt_cli.cli.app import app

    folder = tmp_path_factory.mktemp("home")
    (folder / "story.txt").write_text(story, encoding="utf-8")
    settings = ["max_iters=20", "eval_interval=10", "log_interval=1", "precision=fp32"]
    options = [word for setting in settings for word in ("--set", f"train.{setting}")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = ["train", "--preset", "tiny", "--data", "story.txt", "--device", "cpu"]
        result = CliRunner().invoke(app, [*arguments, *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder
