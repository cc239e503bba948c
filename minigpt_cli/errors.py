"""What a user can get wrong, each in one line: what, where, the fix.

Only these errors are caught (in `cli/boundary.py`) and shown without a traceback; anything else is
a bug.
"""


class MinigptError(Exception):
    """An error the user can fix.

    Args:
        message: one line. It names settings, as in `train.batch_size`, never command-line options.
        settings: the settings that would fix it, each as `name` or `name=value`. The command line
            adds how to set them, for the options that the command at hand has.
    """

    def __init__(self, message: str, settings: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.settings = settings


class ConfigError(MinigptError):
    """A preset, an override or an option has an invalid value."""


class CorpusError(MinigptError):
    """A text cannot be found, downloaded or read."""


class TokenizerError(MinigptError):
    """A tokenizer cannot be built, or cannot encode a text."""


class CheckpointError(MinigptError):
    """A checkpoint or a run folder is missing, damaged or incompatible."""


class OutOfMemoryError(MinigptError):
    """The machine ran out of memory."""


class TrainingError(MinigptError):
    """Training cannot continue: a value became NaN or infinite, or the machine failed."""
