"""Files that are there whole or not at all, at whatever instant a process or machine stops."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, whose file takes the place of `path` once it is safely on the disk.

    Until then it lies in a folder of its own beside `path`, with whatever else a library writes
    there on its way. A process that is killed leaves that folder behind, and the next one to
    replace the same file sweeps it away; so only one may do so at a time.

    Raises:
        OSError: the disk refuses; at `path` is what was there before, or the whole new file.
    """
    folder = path.with_name(f".{path.name}.part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
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
