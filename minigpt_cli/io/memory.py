"""The C library keeps freed memory, instead of giving it back to the system each time."""

import ctypes
import platform


def keep_freed_memory() -> None:
    """Makes this process keep the memory it frees, if the C library is glibc.

    A training step frees what the next one allocates. By default, glibc returns large blocks to
    the system each time, which must then zero every page again: a sixth of a small model's step,
    and a fifth of tokenizing by characters.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, mmap_threshold = -1, -3  # mallopt's parameters, from <malloc.h>
    libc = ctypes.CDLL(None)
    libc.mallopt(mmap_threshold, 32 * 2**20)  # the maximum
    libc.mallopt(trim_threshold, 2**31 - 1)
