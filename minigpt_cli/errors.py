"""What a user can do wrong, each in one line: what, where, the fix.

Only these are caught (in `cli/app.py`) and shown without a traceback; anything else is a bug.
"""


class MinigptError(Exception):
    """A mistake the user can mend; its message is one line and needs no traceback."""


class ConfigError(MinigptError):
    """A preset, a `--set` or an option holds something that cannot be."""


class CorpusError(MinigptError):
    """A text cannot be found, fetched or read."""


class TokenizerError(MinigptError):
    """A tokenizer cannot be built, or cannot express a text."""


class CheckpointError(MinigptError):
    """A checkpoint or a run folder is missing, damaged or does not fit."""


class OutOfMemoryError(MinigptError):
    """The machine has not enough memory for what was asked."""


class TrainingError(MinigptError):
    """A run cannot go on: the numbers, or the machine, went wrong."""
