"""Files that are there whole or not at all, at whatever instant a process or machine stops."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SUFFIX = ".part"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path whose file takes the place of `path`, once it is safely on the disk.

    It lies in a folder of its own beside `path`, with whatever else a library writes there on its
    way (safetensors does). A process that is killed leaves that folder to `sweep`.

    Raises:
        OSError: the disk refuses; at `path` is what was there before, or the whole new file.
    """
    folder = Path(tempfile.mkdtemp(_SUFFIX, f".{path.name}.", path.parent))
    try:
        temporary = folder / path.name
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(path.parent.stat().st_mode & 0o666)  # as open to others as its folder
        temporary.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if os.name == "posix":  # the rename itself is only on the disk once the folder is
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_temporary(name: str) -> bool:
    """Whether a folder is one in which `replacing` writes first."""
    return name.startswith(".") and name.endswith(_SUFFIX)


def sweep(folder: Path) -> None:
    """Removes what killed processes left half-written; nobody else may be writing there.

    Raises:
        OSError: the disk refuses.
    """
    for path in folder.iterdir():
        if is_temporary(path.name):
            shutil.rmtree(path)
