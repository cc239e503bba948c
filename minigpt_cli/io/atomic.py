"""Atomic file writes: whole or not at all, whenever the process or the machine stops."""

import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minigpt_cli.io.regular import NotRegularError
from minigpt_cli.language import _

_SUFFIX = ".part"
_REPLACEABLE = (stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR)  # renaming refuses a folder by itself


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path whose file replaces `path` once it is safely on disk.

    The file is in a temporary folder next to `path`, which also holds what a library may write
    alongside (safetensors does). If the process is killed, `sweep` removes that folder.

    Raises:
        NotRegularError: `path` is a device, FIFO or socket, which no file should replace.
        OSError: writing failed; `path` is unchanged, or the complete new file.
    """
    with suppress(FileNotFoundError):
        if stat.S_IFMT(path.lstat().st_mode) not in _REPLACEABLE:
            raise NotRegularError(errno.EINVAL, _("not a regular file"), str(path))
    folder = Path(tempfile.mkdtemp(_SUFFIX, f".{path.name}.", path.parent))
    try:
        temporary = folder / path.name
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        with suppress(PermissionError):  # some file systems have no modes
            temporary.chmod(_mode(path))
        temporary.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if os.name == "posix":  # the rename is on disk only once the folder is
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_temporary(path: Path, *names: str) -> bool:
    """Whether this is a temporary folder of `replacing`, for a file with one of these names."""
    named = any(path.match(f".{name}.????????{_SUFFIX}") for name in names)
    return named and path.is_dir() and not path.is_symlink()


def sweep(folder: Path, *names: str, older_than: float = 0.0) -> None:
    """Removes the temporary folders that killed processes left for files with these names.

    No process may be writing one of these files in the meantime, or none takes longer for it than
    `older_than` seconds.

    Raises:
        OSError: a folder cannot be removed.
    """
    for path in list(folder.iterdir()):
        if is_temporary(path, *names) and time.time() - path.stat().st_mtime >= older_than:
            shutil.rmtree(path)


def _mode(path: Path) -> int:
    """The mode of the existing file, or the default mode of a new one."""
    if path.exists():
        return path.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
