"""Files that are there whole or not at all."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TEMPORARY = re.compile(r"\..+\.\d+")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path whose file takes the place of `path`, once it is safely on the disk.

    Raises:
        OSError: the disk refuses; what lay at `path` before is unharmed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(path.parent.stat().st_mode & 0o666)  # as open to others as its folder
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the rename itself is only on the disk once the folder is
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def is_temporary(name: str) -> bool:
    """Whether a file is one that `replacing` writes first."""
    return _TEMPORARY.fullmatch(name) is not None


def sweep(folder: Path) -> None:
    """Removes what killed processes left half-written; nobody else may be writing there.

    Raises:
        OSError: the disk refuses.
    """
    for path in folder.iterdir():
        if is_temporary(path.name):
            path.unlink()
