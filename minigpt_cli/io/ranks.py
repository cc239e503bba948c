"""Whether this process was started as one of several, as `torchrun` starts them."""

import os
import signal
import threading
import time

PARENT = "MINIGPT_PARENT"
"""The process that started this one for `--processes`."""
_VARIABLES = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


def started_together() -> bool:
    """Whether the environment names this process's place among others, and where they meet."""
    return os.environ.keys() >= _VARIABLES


def end_with_parent() -> None:
    """Saves and ends when the process that started this one is gone, even if it was killed."""
    parent = os.environ.get(PARENT, "")
    if parent.isdecimal() and hasattr(signal, "SIGHUP"):  # not on Windows, which keeps parents' ids
        threading.Thread(target=_outlive, args=(int(parent),), daemon=True).start()


def _outlive(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
