"""Commands under hostile streams, environments, limits, folders and names: one rule for all.

No traceback, no waiting, no success that is none, nothing changed that was not named, no control
code, no stranger's code run, nothing hidden learned.
"""

import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.helpers.seeds import seed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limits and devices"),
]

SECONDS = 120
"""After which a command counts as hanging, on a machine that is busy with other tests."""
SECRET = "XYZZY4711"
SIZES = (
    "model.n_layer=1", "model.n_head=1", "model.n_embd=8", "model.block_size=8",
    "train.max_iters=2", "train.eval_interval=1", "train.sample_tokens=2", "train.precision=fp32",
)  # fmt: skip
TRAIN = [
    "train", "--preset", "tiny", "--device", "cpu",
    *(word for size in SIZES for word in ("--set", size)),
]  # fmt: skip

FIXED = {
    "help": ["--help"],
    "version": ["--version"],
    "no command": [],
    "usage": ["generate", "--max-new-tokens", "x\x1b]0;owned\x07\u202e"],
    "unknown option": ["inspect", "--\x1b[2J"],
    "inspect": ["inspect", "run/checkpoint.safetensors"],
    "inspect json": ["inspect", "run", "--json"],
    "inspect run": ["inspect", "run"],
    "presets": ["train", "--list-presets", "--json"],
}
"""Commands whose output is always the same, and which need no PyTorch."""
OTHERS = {
    "runs": ["inspect", "runs"],
    "picture": ["inspect", "run", "--plot", "out.svg"],
    "report": ["inspect", "report", "run", "--json"],
    "generate": ["generate", "-c", "run", "-n", "4", "-p", "The "],
    "generate json": ["generate", "-c", "run", "-n", "4", "--json"],
    "stdin": ["generate", "-c", "run", "-n", "4", "-p", "-"],
    "interactive": ["generate", "-c", "run", "-n", "4", "--interactive"],
    "eval": ["eval", "run", "--json"],
    "tokenize": ["tokenize", "notes", "--json"],
    "train": [*TRAIN, "--data", "notes", "--out", "out"],
}


@dataclass
class Surrounding:
    """What surrounds a command: streams, variables and limits."""

    env: dict[str, str] = field(default_factory=dict)
    stdin: str = os.devnull
    stdout: str = ""
    """A device to write to; by default a pipe."""
    prepare: Callable[[], object] | None = None
    is_lost: bool = False
    """Whether nothing can be written to stdout."""
    is_harmless: bool = False
    """Whether the output must be as if nothing were hostile."""


def limited(kind: str, most: int) -> Callable[[], None]:
    def limit() -> None:
        import resource

        resource.setrlimit(getattr(resource, kind), (most, most))

    return limit


SURROUNDINGS = {
    "plain": Surrounding(is_harmless=True),
    "unbuffered": Surrounding({"PYTHONUNBUFFERED": "1"}, is_harmless=True),
    "non-blocking": Surrounding(
        {"PYTHONUNBUFFERED": "1"}, prepare=partial(os.set_blocking, 1, False), is_harmless=True
    ),
    "no stdin": Surrounding(prepare=partial(os.close, 0)),
    "no stdout": Surrounding(prepare=partial(os.close, 1), is_lost=True),
    "no stderr": Surrounding(prepare=partial(os.close, 2), is_harmless=True),
    "no streams": Surrounding(prepare=partial(os.closerange, 0, 3), is_lost=True),
    "full": Surrounding(stdout="/dev/full", is_lost=True),
    "full, unbuffered": Surrounding({"PYTHONUNBUFFERED": "1"}, stdout="/dev/full", is_lost=True),
    "endless stdin": Surrounding(stdin="/dev/zero"),
    "random stdin": Surrounding(stdin="/dev/urandom"),
    "ascii": Surrounding({"PYTHONIOENCODING": "ascii"}, is_harmless=True),
    "utf-16": Surrounding({"PYTHONIOENCODING": "utf-16"}, is_harmless=True),
    "old locale": Surrounding(
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, is_harmless=True
    ),
    "no home": Surrounding({"HOME": "/nonexistent", "XDG_CONFIG_HOME": "/nonexistent"}),
    "no temporary folder": Surrounding({"TMPDIR": "/nonexistent"}),
    "strangers' modules": Surrounding({"PYTHONPATH": ":"}, is_harmless=True),
    "strangers' proxy": Surrounding({"http_proxy": "http://[", "https_proxy": "::"}),
    "narrow": Surrounding({"COLUMNS": "1"}),
    "no width": Surrounding({"COLUMNS": "0", "LINES": "x"}),
    "small files": Surrounding(prepare=limited("RLIMIT_FSIZE", 100)),
    "strange terminal": Surrounding({"TERM": "\x1b[2J", "FORCE_COLOR": ""}),
}


@pytest.fixture
def home(trained_home: Path, tmp_path: Path) -> Path:
    """A folder with a run, notes with a hidden file, and modules of a stranger."""
    folder = tmp_path / "home"
    (folder / "notes" / ".trash").mkdir(parents=True)
    shutil.copy(trained_home / "story.txt", folder / "story.txt")
    shutil.copy(trained_home / "story.txt", folder / "notes" / "kept.md")
    (folder / "notes" / ".trash" / "old.md").write_text(f"{SECRET}\n" * 99)
    shutil.copytree(trained_home / "runs" / "tiny", folder / "run")
    shutil.copytree(trained_home / "data", folder / "data")
    for name in ("torch", "rich", "pip", "evil", "numpy", "matplotlib", "tokenizers", "filelock"):
        (folder / f"{name}.py").write_text("open('RAN', 'w')\nraise SystemExit(0)\n")
    (folder / "matplotlibrc").write_text("backend: module://evil\ntext.usetex: True\n")
    (folder / "pip.conf").write_text("[global]\nindex-url = http://evil.invalid\n")
    (folder / ".env").write_text("PYTHONPATH=.\n")
    return folder


def contents(folder: Path) -> dict[str, str]:
    """A digest of every file but those that commands are expected to write."""
    mine = ("out", "data", "run/report.html", "run/run.lock")
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if not name.startswith(mine) and path.is_file() and path.stat().st_size < 1 << 30:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def call(
    home: Path, arguments: list[str], surrounding: Surrounding
) -> "subprocess.CompletedProcess[bytes]":
    """Runs a command; fails if it does not end."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with open(surrounding.stdin, "rb") as stdin, open(surrounding.stdout or os.devnull, "wb") as to:  # noqa: PTH123
        return subprocess.run(
            [sys.executable, "-m", "minigpt_cli", *arguments],
            cwd=home, env={**env, "OMP_NUM_THREADS": "1", **surrounding.env}, stdin=stdin,
            stdout=to if surrounding.stdout else subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=surrounding.prepare, timeout=SECONDS,
        )  # fmt: skip


def check(done: "subprocess.CompletedProcess[bytes]", home: Path, before: dict[str, str]) -> None:
    """The rule for every command."""
    said = (done.stderr or b"").decode("utf-8", "backslashreplace")
    shown = (done.stdout or b"").decode("utf-8") + said
    assert "Traceback" not in said, said
    assert done.returncode in (0, 1, 2), (done.returncode, said)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", shown), shown
    assert not re.search("(?m)^(ok|forged)$", shown), shown
    assert "Warning" not in said, said
    assert SECRET not in shown
    if done.returncode == 1 and said:
        assert said.splitlines()[-1].startswith(("error: ", "  ")), said
    assert not (home / "RAN").exists(), "a stranger's module was imported"
    after = contents(home)
    assert {path: after.get(path) for path in before} == before
    for path in (home / "data").rglob("*.json"):
        assert SECRET[:4] not in path.read_text("utf-8")


_IN_PEACE: dict[str, "subprocess.CompletedProcess[bytes]"] = {}


def in_peace(home: Path, what: str) -> "subprocess.CompletedProcess[bytes]":
    """What a fixed command does where nothing is hostile."""
    if what not in _IN_PEACE:
        _IN_PEACE[what] = call(home, FIXED[what], SURROUNDINGS["plain"])
    return _IN_PEACE[what]


def chosen(name: str, most: int) -> list[tuple[str, list[str]]]:
    """All fixed commands, and some others, drawn anew for each surrounding."""
    others = random.Random(f"{seed()} {name}").sample(sorted(OTHERS.items()), most)
    return [*FIXED.items(), *others]


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_every_command_keeps_the_rule_in_any_surrounding(home: Path, name: str) -> None:
    surrounding, before = SURROUNDINGS[name], contents(home)
    for what, arguments in chosen(name, 3):
        done = call(home, arguments, surrounding)
        check(done, home, before)
        plain = in_peace(home, what) if what in FIXED else None
        if plain is not None and surrounding.is_harmless:
            assert (done.returncode, done.stdout) == (plain.returncode, plain.stdout), what
        if plain is not None and surrounding.is_lost:
            assert bool(done.returncode) == bool(plain.returncode or plain.stdout), what
        shutil.rmtree(home / "out", ignore_errors=True)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"text\n")
        file.truncate(1 << 40)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def device(name: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(name)


def wild(name: bytes) -> tuple[str, Callable[[Path], object]]:
    return os.fsdecode(name), lambda path: path.write_text("ab ba\n" * 99)


PATHS: dict[str, tuple[str, Callable[[Path], object] | None]] = {
    "missing": ("missing", None),
    "too long": ("x" * 300, None),
    "far too long": ("x/" * 3000, None),
    "empty": ("", None),
    "loop": ("loop", loop),
    "fifo": ("fifo", fifo),
    "zero": ("zero", device("/dev/zero")),
    "random": ("random", device("/dev/urandom")),
    "sparse": ("sparse", sparse),
    "folder": ("folder", Path.mkdir),
    "dangling": ("dangling", device("/nonexistent/there")),
    "not ours": ("/proc/1/environ", None),
    "memory": ("/proc/self/mem", None),
    "title": wild(b"a\x1b]0;owned\x07.txt"),
    "line": wild(b"a\nok\nforged\n.txt"),
    "turned": wild("a\u202egnp\u2066\u2028.txt".encode()),
    "bytes": wild(b"a\xff\x9b2J.txt"),
    "option": wild(b"-rf.txt"),
    "brackets": wild(b"[bold]a[red].txt"),
}
READERS: list[Callable[[str], list[str]]] = [
    lambda path: ["inspect", "--", path],
    lambda path: ["inspect", "report", "--", path],
    lambda path: ["inspect", "surprisal", "-c", "run", "--", path],
    lambda path: ["inspect", "run", f"--plot={path}.svg"],
    lambda path: ["inspect", "surprisal", "story.txt", "-c", "run", f"--html={path}"],
    lambda path: ["generate", "-n", "2", f"--checkpoint={path}"],
    lambda path: ["generate", "-n", "2", "-c", "run", f"--prompt-file={path}"],
    lambda path: ["eval", "--", path],
    lambda path: ["eval", "run", f"--data={path}"],
    lambda path: ["tokenize", f"--data-dir={path}", "story.txt"],
    lambda path: ["tokenize", "--", path],
    lambda path: ["train", f"--preset={path}"],
    lambda path: [*TRAIN, f"--data={path}", "--out", "out"],
    lambda path: ["train", "--resume", "--", path],
    lambda path: [*TRAIN, "--data", "story.txt", f"--out={path}"],
]


@pytest.mark.parametrize("name", PATHS)
def test_every_command_keeps_the_rule_with_any_path(home: Path, name: str) -> None:
    path, make = PATHS[name]
    draw = random.Random(f"{seed()} {name}")
    for reader in draw.sample(READERS, 6):
        if make is not None and not os.path.lexists(home / path):
            make(home / path)
        before = contents(home)
        check(call(home, reader(path), SURROUNDINGS["plain"]), home, before)
        shutil.rmtree(home / "out", ignore_errors=True)
