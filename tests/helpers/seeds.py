"""The seed of the slow tests: new each time, and printed so that a failure can be repeated."""

import os
import secrets

VARIABLE = "MINIGPT_TEST_SEED"


def seed() -> int:
    """The seed of this session, from the environment or new; child processes share it."""
    return int(os.environ.setdefault(VARIABLE, str(secrets.randbelow(2**32))))
