"""What a user can get wrong, each in one line: what, where, the fix.

Only these errors are caught (in `cli/boundary.py`) and shown without a traceback; anything else is
a bug.
"""

import difflib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Literal

from minigpt_cli.language import _

_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP}


def space() -> str:
    """How a hint begins that helps against a full disk."""
    return _("free some space or ")


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


class NonFiniteError(CheckpointError):
    """A model's weights are finite, but what it computes from them is not."""

    def __init__(self, what: str = "") -> None:
        what = what or _("the model's scores (logits)")
        super().__init__(
            _(
                "{what} are NaN or infinite: its weights or settings are too large to "
                "compute with; restore a backup, or train again"
            ).format(what=what)
        )


class InteropError(MinigptError):
    """A model cannot be written in, or read from, another program's format."""


class OutOfMemoryError(MinigptError):
    """The machine ran out of memory."""


class TrainingError(MinigptError):
    """Training cannot continue: a value became NaN or infinite, or the machine failed."""


class PeerLostError(TrainingError):
    """Another process of the run ended, for a reason that it may still have told."""


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
            raise kind(about(path, missing) + did_you_mean(path), settings) from None
        reason = getattr(error, "strerror", None) or error
        if getattr(error, "errno", None) in _NO_LOCKS:
            # Free space, with which such a hint may begin, does not help.
            reason, hint = _("its file system has no locks"), hint.removeprefix(space())
        failed = {
            "read": _("{path}: cannot be read ({reason})"),
            "written": _("{path}: cannot be written ({reason})"),
            "created": _("{path}: cannot be created ({reason})"),
        }
        advice = _("; {hint}").format(hint=hint) if hint else ""
        raise kind(failed[done].format(path=path, reason=reason) + advice, settings) from None


def about(what: Path | str, problem: str) -> str:
    """`WHAT: PROBLEM`, as messages about a file begin."""
    return _("{what}: {problem}").format(what=what, problem=problem)


def did_you_mean(path: Path | str) -> str:
    """`; did you mean diary/jan.txt?` when something with a similar name exists, else nothing.

    The first part of the path that does not exist is compared with its neighbors, and a bare name
    with the runs too.
    """
    path = Path(path)
    try:
        wrong = next(part for part in (*reversed(path.parents), path) if not part.exists())
        folders = {wrong.parent, *([Path("runs")] if path.name == str(path) else [])}
        found = [near for folder in folders if folder.is_dir() for near in _similar(folder, wrong)]
    except (OSError, ValueError, StopIteration):
        return ""
    whole = [near / path.relative_to(wrong) for near in found]
    shown = [str(full if full.exists() else near) for full, near in zip(whole, found, strict=True)]
    return (
        _("; did you mean {shown}?").format(shown=_(" or ").join(sorted(shown)[:2]))
        if shown
        else ""
    )


def _similar(folder: Path, wrong: Path) -> list[Path]:
    """What a folder holds under a similar name: other letters, another case, a suffix left out."""
    names = {name.casefold(): name for name in islice((p.name for p in folder.iterdir()), 10_000)}
    wanted = wrong.name.casefold()
    close = [low for low in names if Path(low).stem == wanted]
    close += difflib.get_close_matches(wanted, names, n=2, cutoff=0.8)
    return [folder / names[low] for low in dict.fromkeys(close)]


def _can_name_a_file(path: Path | str) -> bool:
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False
