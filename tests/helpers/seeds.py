"""The seed of the slow tests: another each time, and said, so that a failure can be had again."""

import os
import secrets

VARIABLE = "MINIGPT_TEST_SEED"


def seed() -> int:
    """The seed of this session, from the environment or fresh; child processes have the same."""
    return int(os.environ.setdefault(VARIABLE, str(secrets.randbelow(2**32))))
