"""The three standard streams, made dependable before a command runs.

Python's own lose output without an error where stdout is unbuffered or does not block, fail with
a traceback where a stream is closed, and replace characters that an encoding lacks.
"""

import codecs
import io
import os
import select
import sys
import traceback
from pathlib import Path
from typing import Any, TextIO

from minigpt_cli.language import ENGLISH, VARIABLE, _

_MARK = "minigpt_question_mark"
_missing_characters = False


class OutputError(Exception):
    """Stdout cannot be written; not an `OSError`, so that no library handles it."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror or str(error))
        self.reader_left = isinstance(error, BrokenPipeError)


class _Output(io.FileIO):
    """A stream that writes everything, or raises `OutputError`."""

    def write(self, data: Any) -> int:
        """Waits where the stream is not ready, such as a slow reader's non-blocking pipe."""
        try:
            while (written := super().write(data)) is None:
                select.select([], [self.fileno()], [])
        except OSError as error:
            raise OutputError(error) from None
        return written


class _Messages(_Output):
    """A stream for messages: a program continues without them when nobody can read them."""

    def write(self, data: Any) -> int:
        """Discards what cannot be written."""
        try:
            return super().write(data)
        except OutputError:
            return memoryview(data).nbytes


def set_up() -> None:
    """Replaces the standard streams.

    Pipes and files are UTF-8. A terminal keeps its encoding, with a question mark for what that
    cannot show; `lacks_characters` then says so. Messages are in English where a stream cannot show
    the user's language. A closed stdin or stdout fails when it is used, a closed stderr is silent.
    """
    _fill_closed()
    codecs.register_error(_MARK, _question_mark)
    if not sys.stdin.isatty():
        sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdin.reconfigure(errors="strict")  # type: ignore[union-attr]
    sys.stdout = _dependable(sys.stdout, _Output, _MARK)
    sys.stderr = _dependable(sys.stderr, _Messages, "backslashreplace")
    if not all(map(_shows_messages, (sys.stdout, sys.stderr))):
        os.environ[VARIABLE] = ENGLISH


def _shows_messages(stream: TextIO) -> bool:
    """Whether a stream can show the user's language; else messages are in English."""
    try:
        _("error: ").encode(stream.encoding)
    except UnicodeEncodeError:
        return False
    return True


def leave_to_rank_0() -> None:
    """Makes one of several processes of a run silent, except about bugs."""
    speaking = sys.stderr
    nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the process ends
    sys.stdout = sys.stderr = nowhere

    def show(*problem: Any) -> None:
        traceback.print_exception(*problem, file=speaking)

    sys.excepthook = show  # before Typer remembers it


def silence(stream: TextIO) -> None:
    """Discards what is still buffered; at exit, Python would try to write it and fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def lacks_characters() -> bool:
    """Whether stdout is a terminal that could not show some of the output."""
    return _missing_characters


def _fill_closed() -> None:
    """Opens a device for each closed stream, so that no other file gets its number.

    Stdin can then only be written and stdout only be read: using them is an error, not silence.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            device = os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_WRONLY)
            if device != number:
                os.dup2(device, number)
                os.close(device)
            raw = io.FileIO(number, "r" if number == 0 else "w", closefd=False)
            buffer = io.BufferedReader(raw) if number == 0 else io.BufferedWriter(raw)
            setattr(sys, name, io.TextIOWrapper(buffer, encoding="utf-8"))


def _dependable(stream: TextIO, kind: type[_Output], errors: str) -> TextIO:
    is_terminal = stream.isatty()
    encoding = stream.encoding if is_terminal else "utf-8"
    errors = errors if is_terminal else "backslashreplace"
    raw = getattr(stream.buffer, "raw", stream.buffer)
    if type(raw) is not io.FileIO:  # the console of Windows has its own
        stream.reconfigure(encoding=encoding, errors=errors)  # type: ignore[attr-defined]
        return stream
    buffer = io.BufferedWriter(kind(stream.fileno(), "w", closefd=False))
    every_line = is_terminal or kind is _Messages
    return io.TextIOWrapper(buffer, encoding, errors, line_buffering=every_line)


def _question_mark(error: UnicodeError) -> tuple[str, int]:
    global _missing_characters  # noqa: PLW0603 - a handler has nowhere else to keep it
    _missing_characters = True
    assert isinstance(error, UnicodeEncodeError)
    return "?" * (error.end - error.start), error.end
