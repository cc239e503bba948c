"""Files that are there whole or not at all, at whatever instant a process or machine stops."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
        with suppress(PermissionError):  # not every file system has modes
            temporary.chmod(_mode(path))
        temporary.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if os.name == "posix":  # the rename itself is only on the disk once the folder is
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_temporary(path: Path, *names: str) -> bool:
    """Whether this is a folder in which `replacing` first writes a file of one of the names."""
    left = any(path.match(f".{name}.????????{_SUFFIX}") for name in names)
    return left and path.is_dir() and not path.is_symlink()


def sweep(folder: Path, *names: str) -> None:
    """Removes what killed processes left of files of these names, which nobody may be writing.

    Raises:
        OSError: the disk refuses.
    """
    for path in list(folder.iterdir()):
        if is_temporary(path, *names):
            shutil.rmtree(path)


def _mode(path: Path) -> int:
    """That of the file so far, or that of any new file."""
    if path.exists():
        return path.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
