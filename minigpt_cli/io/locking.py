"""Locks that keep processes from writing the same files; the system releases them after a crash."""

import warnings

from filelock import BaseFileLock


def take(lock: BaseFileLock, *, blocking: bool) -> None:
    """Acquires a lock; on a file system without locks, a file that exists stands in for it.

    Raises:
        Timeout: another process holds it, and `blocking` is false.
        OSError: it cannot be taken.
    """
    with warnings.catch_warnings():  # about that file, which is of no concern to a user
        warnings.simplefilter("ignore", UserWarning)
        lock.acquire(blocking=blocking)
