"""Shared by all tests: the same environment, no network, deterministic hypothesis."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Models this small are many times faster on one thread than on two that wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Threads that spin while they wait take the cores that other test workers need.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
from filelock import FileLock
from hypothesis import settings

from tests.helpers.seeds import seed

if TYPE_CHECKING:
    from minigpt_cli.data.dataset import Dataset
    from minigpt_cli.runs.folder import RunFolder

# No test may depend on how fast the machine is, nor on what it tried the last time.
settings.register_profile("minigpt", deadline=None, derandomize=True, database=None)
settings.load_profile("minigpt")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "network: needs a package index")
    config.addinivalue_line("markers", "slow: takes minutes; run by the second stage")
    config.addinivalue_line("markers", "browser: needs chromium and chromedriver")
    config.addinivalue_line("markers", "gpu: needs an NVIDIA GPU")
    # Nothing of the developer's terminal and settings shows through.
    for variable in (
        "FORCE_COLOR", "NO_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "PYTHONUNBUFFERED", "MINIGPT_DATA"
    ):  # fmt: skip
        os.environ.pop(variable, None)
    os.environ |= {"COLUMNS": "120", "TERM": "xterm-256color", "MINIGPT_LANG": "en"}
    seed()  # set before the workers start, which inherit it
    # A background job ignores Ctrl-C, and so would the programs that tests start from it.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    return f"slow tests: MINIGPT_TEST_SEED={seed()}"


@pytest.fixture(scope="session", autouse=True)
def _library_is_built() -> None:
    """Builds the C library before a test limits files, time or the environment.

    It is kept in the developer's real cache, where a name stands for its contents: no test can
    spoil it, and no session has to build what the last one did. A process of its own does it,
    since loading it here would start OpenMP before PyTorch does.
    """
    program = "from minigpt_cli.native.library import library; library()"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits tests to loopback, and pip to no index, unless they are marked `network`."""
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
    """A short text, long enough for a tiny model."""
    who = ("The ferryman", "A lamplighter", "My neighbour", "The old heron")
    does = ("counts", "mends", "follows", "forgets")
    what = ("paper boats", "the slow tide", "three green lanterns", "every bridge")
    return "".join(f"{a} {b} {c}, and so do I.\n" for a, b, c in product(who, does, what))


@pytest.fixture(scope="session")
def trained_home(tmp_path_factory: pytest.TempPathFactory, story: str) -> Path:
    """A folder with `story.txt`, its prepared data and a finished run of `tiny`; not to change.

    The first worker that needs it trains, and all share it.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, done = shared / "trained", shared / "trained.done"
    with FileLock(shared / "trained.lock"):
        if not done.exists():
            _train_home(folder, story)
            done.touch()
    return folder


def _train_home(folder: Path, story: str) -> None:
    from typer.testing import CliRunner

    from minigpt_cli.cli.app import app

    folder.mkdir()
    (folder / "story.txt").write_text(story, encoding="utf-8")
    settings = ["max_iters=20", "eval_interval=10", "log_interval=1", "precision=fp32"]
    options = [word for setting in settings for word in ("--set", f"train.{setting}")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = ["train", "--preset", "tiny", "--data", "story.txt", "--device", "cpu"]
        arguments += ["--out", "runs/tiny"]
        result = CliRunner().invoke(app, [*arguments, *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.fixture
def dataset(tmp_path: Path, story: str) -> "Dataset":
    """The story, one token per character."""
    from minigpt_cli.data.corpora.corpus import Corpus
    from minigpt_cli.data.corpora.sources import TextFile
    from minigpt_cli.data.dataset import prepare_dataset
    from tests.helpers.training import small_config

    path = tmp_path / "story.txt"
    path.write_text(story, encoding="utf-8")
    return prepare_dataset(
        Corpus("story", (TextFile(path),)), small_config().data, tmp_path / "data"
    )


@pytest.fixture
def run(tmp_path: Path) -> "RunFolder":
    """An empty folder for a run."""
    from minigpt_cli.runs.folder import RunFolder

    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


@pytest.fixture
def no_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips measuring the machine's speed, which takes longer than the training."""
    monkeypatch.setattr("minigpt_cli.training.trainer.matmul_flops", lambda *_: 1e12)


@pytest.fixture
def unprivileged(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Makes file permissions apply to root too, such as in a container."""
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
    # By itself it asks what the real user, root, may do.
    monkeypatch.setattr(os, "access", partial(os.access, effective_ids=True))
    try:
        yield
    finally:
        sets[0] = before
        assert libc.capset(header, sets) == 0
