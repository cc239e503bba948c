"""The two output streams: data on stdout, everything else on stderr."""

import re
import sys
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from minigpt_cli.io.strict_json import write_json
from minigpt_cli.io.text import printable as printable  # used through here by the commands
from minigpt_cli.io.text import printable_json, printable_line
from minigpt_cli.language import _

_PARTS = re.compile(r"[（“《]*(?:[!-~]+|.)[，。；：！？、）”》]*\s*")
"""What a line is not broken inside of: a word, or a character, with the punctuation at it."""

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def in_unicode() -> bool:
    """Whether stdout can display Unicode characters, such as blocks and braille dots."""
    return out.encoding.startswith("utf")


def print_error(message: str) -> None:
    """Prints an error as one line, wrapped at words on a terminal; brackets are not markup."""
    line = " ".join(message.split())
    print_wrapped(Text.assemble((_("error: "), "bold red"), printable(line)))


def print_note(message: str) -> None:
    """Prints a message to stderr, as one line."""
    print_wrapped(Text(printable_line(message), style="dim"))


def print_wrapped(text: Text) -> None:
    """Prints a line to stderr, wrapped on a terminal; a log file gets it whole."""
    if err.is_terminal and has_wide(text.plain):
        for line in text.divide(line_breaks(text.plain, err.width)):
            line.rstrip()
            err.print(line, soft_wrap=True)
    else:
        err.print(text, soft_wrap=not err.is_terminal)


def has_wide(text: str) -> bool:
    """Whether a text has characters that take two columns, as Chinese ones do."""
    return cell_len(text) > len(text)


def line_breaks(text: str, width: int) -> list[int]:
    """Where to break a Chinese text, which may be anywhere but inside a word of letters."""
    breaks, column = [], 0
    for part in _PARTS.finditer(text):
        cells = cell_len(part.group())
        if column and column + cell_len(part.group().rstrip()) > width:
            breaks.append(part.start())
            column = 0
        column += cells
    return breaks


def print_json(value: Any) -> None:
    """Prints a value as indented JSON to stdout."""
    sys.stdout.write(_json(value, indent=2) + "\n")


def print_json_lines(values: list[Any]) -> None:
    """Prints values as JSON to stdout, one per line."""
    for value in values:
        sys.stdout.write(_json(value) + "\n")


def _json(value: Any, indent: int | None = None) -> str:
    return printable_json(write_json(value, indent, in_ascii=not in_unicode()))
