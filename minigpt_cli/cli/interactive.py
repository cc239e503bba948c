"""`minigpt generate --interactive`: the user and the model write a text in turns."""

import difflib
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
from minigpt_cli.language import _, mark

HELP = mark("""\
Type the next words; the model continues. An empty line lets it continue alone.
Your words are bold, the model's are not. Ctrl-C stops it, Ctrl-D quits.
  /settings          show the settings; change them: /temperature 0.7, /top-k off
  /reset             start a new text
  /save FILE         write the text to a new file; /save! FILE overwrites one
  /help              show this help
  /quit, /exit       end, as Ctrl-D does
A line that ends with \\ goes on in the next one: so you type a line break.
A line that begins with // begins with / in the text.""")


# Settings by the name that the user types; None is the value `off` of those that have it.
_KINDS = {
    "temperature": float, "top_p": float, "min_p": float, "repetition_penalty": float,
    "top_k": int, "seed": int, "max_new_tokens": int,
}  # fmt: skip
_QUITTING = ("quit", "exit")
_MOST_CHARACTERS = 1 << 20
"""A longer turn comes from a device or a broken pipe."""
_COMMANDS = ("settings", "reset", "save", "save!", "help", *_QUITTING)
_CAN_BE_OFF = ("top_k", "top_p", "min_p")


def write_together(writer: Writer, prompt: str) -> None:
    """Reads lines from the user and continues the text after each, until stdin ends."""
    session = _Session(writer)
    _print_help()
    with _line_history():
        if prompt:
            session.say(prompt)
        while True:
            try:
                line = _typed()
            except (EOFError, KeyboardInterrupt):
                sys.stdout.write("\n" if sys.stdin.isatty() else "")
                return
            except UnicodeDecodeError:
                raise ConfigError(_("stdin: not UTF-8; type or send UTF-8")) from None
            except OSError as error:  # closed, or its terminal is gone
                raise ConfigError(
                    _("stdin: cannot be read ({reason})").format(reason=error.strerror)
                ) from None
            if line.strip().removeprefix("/") in _QUITTING and line.startswith("/"):
                return
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
        if line.startswith("//"):
            self.say(line[1:])
        elif line.startswith("/"):
            name, _space, value = line[1:].partition(" ")
            self.command(name, value.strip())
        else:
            self.say(line)

    def say(self, words: str) -> None:
        """Adds words to the text and lets the model continue."""
        # Its own error, because the user counts characters from what was typed.
        self.writer.checkpoint.tokenizer.encode(words)
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
        elif name in ("save", "save!"):
            self.save(value, overwrite=name == "save!")
        elif name == "settings" and not value:
            self.show_settings()
        elif name == "settings":  # /settings temperature 0.7
            key, _space, rest = value.replace("=", " ").partition(" ")
            self.change(key.replace("-", "_"), key, rest.strip())
        else:
            self.change(setting, name, value)

    def change(self, setting: str, name: str, value: str) -> None:
        """Changes a setting; without a value, shows it.

        Raises:
            ConfigError: the setting is unknown, or its value is invalid.
        """
        if setting not in _KINDS:
            near = difflib.get_close_matches(name, [*_COMMANDS, *map(_typed_name, _KINDS)], n=1)
            hint = (
                _("did you mean /{near}?").format(near=near[0]) if near else _("/help lists them")
            )
            raise ConfigError(_("/{name}: unknown command; {hint}").format(name=name, hint=hint))
        if value:
            off = value == "off" and setting in _CAN_BE_OFF
            chosen: dict[str, Any] = {
                setting: None if off else _parsed(_KINDS[setting], name, value)
            }
            if setting != "max_new_tokens":
                chosen = {"sampling": replace(self.writer.sampling, **chosen)}
            elif chosen[setting] < 1:
                raise ConfigError(
                    _("/{name} {value}: must be 1 or more").format(name=name, value=value)
                )
            self.writer = replace(self.writer, **chosen)
        print_note(f"  {_typed_name(setting)} {self._setting(setting)}")

    def show_settings(self) -> None:
        """Shows every setting as it would be typed to change it."""
        for name in _KINDS:
            print_note(f"  /{_typed_name(name):<19}{self._setting(name)}")

    def _setting(self, name: str) -> str:
        holder = self.writer if name == "max_new_tokens" else self.writer.sampling
        value = getattr(holder, name)
        return "off" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

    def save(self, name: str, overwrite: bool) -> None:
        """Writes the text to a file."""
        if not name:
            raise ConfigError(_("/save: no file name; try /save text.txt"))
        with reraise_as(ConfigError, f"/save {name}", "written", also=(ValueError,)):
            try:
                mode = "w" if overwrite else "x"
                with Path(name).open(mode, encoding="utf-8", newline="") as file:
                    file.write(self.text)
            except FileExistsError:
                raise ConfigError(
                    _("/save {name}: already exists; /save! {name} overwrites it").format(name=name)
                ) from None
        print_note(_("{name}: {number:,} characters").format(name=name, number=len(self.text)))


def _typed() -> str:
    """What the user types: a line, or several where each but the last ends with a backslash."""
    on_terminal = sys.stdin.isatty()
    lines: list[str] = []
    room = _MOST_CHARACTERS
    while True:
        try:
            line = input("... " if lines else "> ") if on_terminal else _read_line(room)
        except EOFError:
            if not lines:
                raise
            line = ""
        room -= len(line) + 1
        kept = line.rstrip("\\")
        typed = len(line) - len(kept)  # two of them are one backslash of the text
        lines.append(kept + "\\" * (typed // 2))
        if typed % 2 == 0:
            return "\n".join(lines)


def _read_line(room: int) -> str:
    """A line of a file or a pipe, which may have no end.

    Raises:
        ConfigError: the line has more than `room` characters.
        EOFError: nothing is left.
    """
    line = sys.stdin.readline(max(room, 0) + 1)
    if not line:
        raise EOFError
    if len(line) > room:
        raise ConfigError(
            _("stdin: a turn of over {most_characters:,} characters; send less text").format(
                most_characters=_MOST_CHARACTERS
            )
        )
    return line.removesuffix("\n")


def _typed_name(setting: str) -> str:
    return setting.replace("_", "-")


def _print_help() -> None:
    err.print(_(HELP), style="dim", markup=False)


def _parsed(kind: type, name: str, value: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        wanted = _("a whole number") if kind is int else _("a number")
        raise ConfigError(
            _("/{name} {value}: not {wanted}; try /{name} 1").format(
                name=name, value=value, wanted=wanted
            )
        ) from None


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
