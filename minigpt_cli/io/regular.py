"""Regular files only: nothing that makes a reader wait, or never ends."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from minigpt_cli.language import _


class NotRegularError(OSError):
    """A FIFO, device or socket where a file is expected."""


def open_regular(path: Path) -> BufferedReader:
    """Opens a regular file, or what a link says is one, for reading.

    A FIFO is not waited for, and a device not touched, even if it takes a file's place just now.

    Raises:
        OSError: the file cannot be opened, or is not a regular file.
    """
    _check_regular(path.stat(), path)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        _check_regular(os.fstat(descriptor), path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check_regular(status: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise NotRegularError(errno.EINVAL, _("not a regular file"), str(path))


def read_bounded(path: Path, most: int) -> bytes:
    """The contents of a regular file of at most `most` bytes.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
        ValueError: it is longer.
    """
    with open_regular(path) as file:
        data = file.read(min(os.fstat(file.fileno()).st_size, most) + 1)
    if len(data) > most:
        raise ValueError(_("more than {most:,} bytes").format(most=most))
    return data
