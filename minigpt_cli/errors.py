"""What a user can get wrong, each in one line: what, where, the fix.

Only these errors are caught (in `cli/boundary.py`) and shown without a traceback; anything else is
a bug.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

SPACE = "free some space or "
"""How a hint begins that helps against a full disk."""
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP}


class MinigptError(Exception):
    """An error the user can fix.

    Args:
        message: one line. It names settings, as in `train.batch_size`, never command-line options.
        settings: the settings that would fix it, each as `name` or `name=value`. The command line
            adds how to set them, for the options that the command has.
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


class InteropError(MinigptError):
    """A model cannot be written in, or read from, another program's format."""


class OutOfMemoryError(MinigptError):
    """The machine ran out of memory."""


class TrainingError(MinigptError):
    """Training cannot continue: a value became NaN or infinite, or the machine failed."""


@contextmanager
def reraise_as(
    kind: type[MinigptError],
    path: Path | str,
    done: Literal["read", "written", "created"],
    *,
    missing: str = "",
    hint: str = "",
    settings: tuple[str, ...] = (),
    also: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Turns a failed file operation into `PATH: cannot be read (REASON); HINT`.

    Args:
        kind: the error to raise.
        path: the file or folder, as the message names it.
        done: what failed.
        missing: what to say after the path when the file does not exist, instead of the above.
        hint: the fix.
        settings: those that the hint names, as in `MinigptError`.
        also: what a library raises instead of `OSError`.

    Raises:
        MinigptError: of the given kind, when the operation fails or `path` cannot name a file.
    """
    failures: tuple[type[Exception], ...] = (OSError, ValueError, *also)
    try:
        yield
    except failures as error:
        if isinstance(error, ValueError) and not isinstance(error, also) and _can_name_a_file(path):
            raise  # a bug
        if missing and isinstance(error, FileNotFoundError):
            raise kind(f"{path}: {missing}", settings) from None
        reason = getattr(error, "strerror", None) or error
        if getattr(error, "errno", None) in _NO_LOCKS:
            reason, hint = "its file system has no locks", hint.removeprefix(SPACE)
        advice = f"; {hint}" if hint else ""
        raise kind(f"{path}: cannot be {done} ({reason}){advice}", settings) from None


def _can_name_a_file(path: Path | str) -> bool:
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False
