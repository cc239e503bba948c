"""Whether this process was started as one of several, as `torchrun` starts them."""

import os

_VARIABLES = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


def started_together() -> bool:
    """Whether the environment names this process's place among others, and where they meet."""
    return os.environ.keys() >= _VARIABLES
