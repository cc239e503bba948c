"""`minigpt generate --interactive`: the user and the model write a text in turns."""

import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from minigpt_cli.cli.console import err, print_error, print_note
from minigpt_cli.cli.writing import Writer
from minigpt_cli.errors import ConfigError, MinigptError, reraise_as

HELP = """\
Type the next words; the model continues from there. An empty line lets it continue alone.
Ctrl-C stops it, Ctrl-D quits.
  /temperature 0.7   /top-k 20   /top-p 0.9   /min-p 0.05   /repetition-penalty 1.2
  /seed 1            /max-new-tokens 200
  /reset             start a new text
  /save FILE         write the text to a file
  /help              show this help"""

# Settings by the name that the user types.
_KINDS = {
    "temperature": float, "top_p": float, "min_p": float, "repetition_penalty": float,
    "top_k": int, "seed": int,
}  # fmt: skip


def write_together(writer: Writer, prompt: str) -> None:
    """Reads lines from the user and continues the text after each, until stdin ends."""
    session = _Session(writer)
    _print_help()
    with _line_history():
        if prompt:
            session.say(prompt)
        while True:
            try:
                line = input("> " if sys.stdin.isatty() else "")
            except (EOFError, KeyboardInterrupt):
                sys.stdout.write("\n" if sys.stdin.isatty() else "")
                return
            except UnicodeDecodeError:
                raise ConfigError("stdin: not UTF-8; type or send UTF-8") from None
            except OSError as error:  # closed, or its terminal is gone
                raise ConfigError(f"stdin: cannot be read ({error.strerror})") from None
            try:
                session.take(line)
            except MinigptError as error:
                print_error(str(error))


class _Session:
    """The text so far, and the settings for continuing it."""

    def __init__(self, writer: Writer) -> None:
        self.writer, self.text = writer, ""

    def take(self, line: str) -> None:
        """Handles a line from the user: a command, or words to continue from."""
        if line.startswith("/"):
            name, _, value = line[1:].partition(" ")
            self.command(name, value.strip())
        else:
            self.say(line)

    def say(self, words: str) -> None:
        """Adds words to the text and lets the model continue."""
        pieces = self.writer.stream(self.text + words, shown=words)
        self.text += words
        with _noticing_ctrl_c() as pressed, closing(pieces):
            for piece in pieces:
                self.text += piece
                if pressed:  # stops this continuation, not the program
                    return

    def command(self, name: str, value: str) -> None:
        """Runs a command: changes a setting, or resets or saves the text."""
        setting = name.replace("-", "_")
        if name == "help":
            _print_help()
        elif name == "reset":
            self.text = ""
        elif name == "save":
            self.save(value)
        elif setting == "max_new_tokens":
            count = _parsed(int, name, value)
            if count < 1:
                raise ConfigError(f"/{name} {value}: must be 1 or more")
            self.writer = replace(self.writer, max_new_tokens=count)
        elif setting in _KINDS:
            chosen: dict[str, Any] = {setting: _parsed(_KINDS[setting], name, value)}
            self.writer = replace(self.writer, sampling=replace(self.writer.sampling, **chosen))
        else:
            raise ConfigError(f"/{name}: unknown command; /help lists them")

    def save(self, name: str) -> None:
        """Writes the text to a file."""
        if not name:
            raise ConfigError("/save: no file name; try /save text.txt")
        with reraise_as(ConfigError, f"/save {name}", "written", also=(ValueError,)):
            Path(name).write_text(self.text, encoding="utf-8")
        print_note(f"{name}: {len(self.text):,} characters")


def _print_help() -> None:
    err.print(HELP, style="dim", markup=False)


def _parsed(kind: type, name: str, value: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise ConfigError(f"/{name} {value}: not {wanted}; try /{name} 1") from None


@contextmanager
def _noticing_ctrl_c() -> Iterator[list[int]]:
    """In this context Ctrl-C only adds to the list, so that it interrupts nothing halfway."""
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _line_history() -> Iterator[None]:
    """Lets lines be edited and recalled with the arrow keys, across sessions."""
    try:
        import readline
    except ImportError:  # Windows has its own history
        yield
        return
    if not sys.stdin.isatty():
        yield
        return
    history = Path(typer.get_app_dir("minigpt")) / "history"
    with suppress(OSError):
        readline.read_history_file(history)
    try:
        yield
    finally:
        with suppress(OSError):
            history.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(history)
