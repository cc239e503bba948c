"""The two output streams: data on stdout, everything else on stderr."""

import json
import os
import re
import sys
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from minigpt_cli.io.text import printable as printable  # used through here by the commands


def silence(stream: TextIO) -> None:
    """Discards what is still buffered; at exit, Python would try to write it and fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _MessageConsole(Console):
    """A console for messages. If it cannot write, the program continues without them."""

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError:  # for example, a log file on a full disk
            self.on_broken_pipe()

    def __exit__(self, *exception: Any) -> None:
        try:
            super().__exit__(*exception)
        except OSError:  # a bar is written here, not by `print`; its terminal may be gone
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        self.quiet = True
        silence(sys.stderr)


out = Console(highlight=False)
err = _MessageConsole(stderr=True, highlight=False)

# The control characters that `json.dumps` does not escape.
_CONTROL_IN_JSON = re.compile("[\x7f-\x9f\ud800-\udfff]")


def in_unicode() -> bool:
    """Whether stdout can display Unicode characters, such as blocks and braille dots."""
    return out.encoding.startswith("utf")


def print_error(message: str) -> None:
    """Prints an error as one line of any length; brackets are not markup."""
    line = " ".join(message.split())
    err.print(Text.assemble(("error: ", "bold red"), printable(line)), soft_wrap=True)


def print_note(message: str) -> None:
    """Prints a message to stderr."""
    err.print(Text(printable(message), style="dim"), soft_wrap=True)


def print_json(value: Any) -> None:
    """Prints a value as indented JSON to stdout."""
    sys.stdout.write(_json(value, indent=2) + "\n")


def print_json_lines(values: list[Any]) -> None:
    """Prints values as JSON to stdout, one per line."""
    for value in values:
        sys.stdout.write(_json(value) + "\n")


def _json(value: Any, indent: int | None = None) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _CONTROL_IN_JSON.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
