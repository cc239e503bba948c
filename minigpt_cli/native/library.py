"""Builds the C files of this folder with the machine's own compiler, once, and loads them.

The result is kept in the user's cache, under a name that depends on the source and the processor.
Without a compiler, or where the cache cannot be written, there is none, and nothing is said: all is
computed in PyTorch then, more slowly.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

COMPILER = "MINIGPT_CC"
"""Names the C compiler; empty, nothing is built."""
_FOLDER = Path(__file__).parent
_COMMON = ("-O3", "-shared", "-fPIC", "-std=gnu11")
# Apple's compiler knows neither OpenMP nor, on ARM, -march=native.
_CHOICES = (("-march=native", "-fopenmp"), ("-march=native",), ("-mcpu=native",))
_LONGEST_BUILD = 60.0


@cache
def library() -> ctypes.CDLL | None:
    """What is compiled, built if it has not been, or None."""
    compiler = shutil.which(os.environ.get(COMPILER, "cc"))
    if compiler is None or os.name != "posix":
        return None
    with suppress(OSError, RuntimeError):  # an unwritable or unknown home, a damaged file
        folder = _own_folder()
        built = folder / f"{_digest(compiler)}.so"
        if not built.exists():
            _build(compiler, built)
        if built.stat().st_size:  # it is empty where the compiler failed
            return ctypes.CDLL(str(built))
    return None


def _own_folder() -> Path:
    """Where the library is kept, which nobody else can write to.

    Raises:
        OSError: somebody else can.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base, "minigpt")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(folder)
    return folder


def _digest(compiler: str) -> str:
    """Stands for everything that the library depends on."""
    sources = sorted(_FOLDER.glob("*.[ch]"))
    parts = [each.read_bytes() for each in sources]
    parts += [compiler.encode(), platform.machine().encode()]
    with suppress(OSError):  # Linux only
        lines = Path("/proc/cpuinfo").read_bytes().split(b"\n\n", 1)[0].splitlines()
        # A home may be shared by machines with other processors.
        parts += [line for line in lines if line.startswith((b"flags", b"Features", b"model name"))]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _build(compiler: str, path: Path) -> None:
    """Compiles to `path`, with the first flags that work; an empty file if none do."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="build-") as folder:
        made = Path(folder, path.name)
        if not any(_compiles(command) for command in _commands(compiler, made)):
            made.write_bytes(b"")
        made.replace(path)


def _commands(compiler: str, path: Path) -> Iterator[list[str]]:
    sources = [str(each) for each in sorted(_FOLDER.glob("*.c"))]
    for flags in _CHOICES:
        yield [compiler, *_COMMON, *flags, "-o", str(path), *sources, "-lm"]


def _compiles(command: list[str]) -> bool:
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_LONGEST_BUILD,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
