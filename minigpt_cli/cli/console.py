"""The terminal's two sides: data on stdout, everything else on stderr."""

import json
import os
import re
import sys
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from minigpt_cli.io.text import printable as printable  # the rooms beside ask for it here


def silence(stream: TextIO) -> None:
    """What is left to write goes nowhere: at exit Python would try again, and complain again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Aside(Console):
    """What is said beside the data. When nobody can hear it, the work goes on in silence."""

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError:  # a full disk under a log, say
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        self.quiet = True
        silence(sys.stderr)


out = Console(highlight=False)
err = _Aside(stderr=True, highlight=False)

# Those control characters that JSON leaves as they are, though it could escape them.
_CONTROL_IN_JSON = re.compile("[\x7f-\x9f\ud800-\udfff]")


def in_unicode() -> bool:
    """Whether stdout takes blocks, dots and signs, or ASCII alone."""
    return out.encoding.startswith("utf")


def print_error(message: str) -> None:
    """One line, whatever the width: it may be long, and it may hold brackets."""
    line = " ".join(message.split())
    err.print(Text.assemble(("error: ", "bold red"), printable(line)), soft_wrap=True)


def print_note(message: str) -> None:
    """Something worth knowing beside the data."""
    err.print(Text(printable(message), style="dim"), soft_wrap=True)


def print_json(value: Any) -> None:
    """Facts for programs."""
    sys.stdout.write(_json(value, indent=2) + "\n")


def print_json_lines(values: list[Any]) -> None:
    """Facts for programs that read line by line."""
    for value in values:
        sys.stdout.write(_json(value) + "\n")


def _json(value: Any, indent: int | None = None) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _CONTROL_IN_JSON.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
