"""File permissions: what is derived from a private file stays as private."""

import stat
from contextlib import suppress
from pathlib import Path


def restrict(path: Path, most: int) -> None:
    """Takes permissions from a file or folder that it should not give; its owner's stay.

    A link is left alone, and so is what the system does not let us change.

    Raises:
        OSError: the path does not exist.
    """
    status = path.lstat()
    mode = status.st_mode & 0o777
    if not stat.S_ISLNK(status.st_mode) and mode & ~(most | 0o700):
        with suppress(OSError):  # another user's, or on a read-only disk
            path.chmod(mode & (most | 0o700))


def enterable(permissions: int) -> int:
    """The permissions of a folder whose files have these: what may be read may be entered."""
    return permissions | (permissions & 0o444) >> 2
