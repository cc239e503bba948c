"""Builds the C files of this folder with the machine's own compiler, once, and loads them.

The result is kept in the user's cache, under a name that depends on the source and the processor,
and on its own contents: a damaged file is built again. Without a compiler, or where the cache
cannot be written, there is none, and nothing is said: all is computed in PyTorch then, more slowly.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

COMPILER = "MINIGPT_CC"
"""Names the C compiler; empty, nothing is built."""
LANES = 16
"""Numbers in a vector, as in `vectors.h`, and so the output rows of a packed panel."""
_FOLDER = Path(__file__).parent
_COMMON = ("-O3", "-shared", "-fPIC", "-std=gnu11")
# Apple's compiler knows neither OpenMP nor, on ARM, -march=native.
_CHOICES = (("-march=native", "-fopenmp"), ("-march=native",), ("-mcpu=native",))
_LONGEST_BUILD = 60.0
_DAY = 86_400.0
"""How long a failure is remembered: a compiler may be repaired. Killed builds are as old then."""


@cache
def library() -> ctypes.CDLL | None:
    """What is compiled, built if it has not been, or None."""
    compiler = shutil.which(os.environ.get(COMPILER, "cc"))
    # An empty entry of PATH is the current folder, which may be a stranger's.
    if os.name != "posix" or compiler is None or not Path(compiler).is_absolute():
        return None
    with suppress(OSError, RuntimeError):  # an unwritable or unknown home
        folder, digest = _own_folder(), _digest(compiler)
        failed = folder / f"{digest}-failed"
        built = _intact(folder, digest)
        if built is None and not _is_recent(failed):
            built = _build(compiler, folder, digest)
            if built is None:
                failed.touch()
        return None if built is None else ctypes.CDLL(str(built))
    return None


def _own_folder() -> Path:
    """Where the library is kept, which nobody else can write to.

    Raises:
        OSError: somebody else can, or it cannot be made.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        base = Path.home() / ".cache"
    folder = base / "minigpt"
    for each in (base, folder):  # but no home where there is none
        each.mkdir(mode=0o700, exist_ok=True)
    if not _is_own(folder):
        raise PermissionError(folder)
    return folder


def _is_own(path: Path) -> bool:
    status = path.stat()
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _is_recent(path: Path) -> bool:
    return path.exists() and time.time() - path.stat().st_mtime < _DAY


def _intact(folder: Path, digest: str) -> Path | None:
    """The library, if it is there and whole; a damaged one is removed."""
    for path in folder.glob(f"{digest}-*.so"):
        if _is_own(path) and path.name == _name(digest, path):
            return path
        path.unlink(missing_ok=True)
    return None


def _name(digest: str, made: Path) -> str:
    return f"{digest}-{_hash(made.read_bytes())}.so"


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _digest(compiler: str) -> str:
    """Stands for everything that the library depends on."""
    sources = sorted(_FOLDER.glob("*.[ch]"))
    parts = [each.read_bytes() for each in sources]
    parts += [compiler.encode(), platform.machine().encode()]
    with suppress(OSError):  # Linux only
        lines = Path("/proc/cpuinfo").read_bytes().split(b"\n\n", 1)[0].splitlines()
        # A home may be shared by machines with other processors.
        parts += [line for line in lines if line.startswith((b"flags", b"Features", b"model name"))]
    return _hash(b"\0".join(parts))


def _build(compiler: str, folder: Path, digest: str) -> Path | None:
    """Compiles with the first flags that work; None if none do, or the compiler hangs."""
    for killed in folder.glob("build-*"):
        if not _is_recent(killed):
            shutil.rmtree(killed, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="build-") as temporary:
        made = Path(temporary, "made.so")
        with suppress(subprocess.TimeoutExpired):
            if any(_compiles(command, made.parent) for command in _commands(compiler, made)):
                return made.replace(folder / _name(digest, made))
    return None


def _commands(compiler: str, path: Path) -> Iterator[list[str]]:
    sources = [str(each) for each in sorted(_FOLDER.glob("*.c"))]
    for flags in _CHOICES:
        yield [compiler, *_COMMON, *flags, "-o", str(path), *sources, "-lm"]


def _compiles(command: list[str], folder: Path) -> bool:
    """Runs the compiler in a folder of its own: an empty entry of CPATH is the current one.

    Raises:
        subprocess.TimeoutExpired: it does not end.
    """
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        command, cwd=folder, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
    )
    try:
        return process.wait(_LONGEST_BUILD) == 0
    except BaseException:  # Ctrl-C, say: what the compiler started goes too
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
