"""Help in the user's language: whole paragraphs, no types in brackets, flags without a value."""

import inspect
import re
from typing import Any

from minigpt_cli.language import ENGLISH, _, language, mark

_NAMES = {
    "bool": "", "str": "TEXT", "list[str]": "TEXT", "path": "PATH", "list[Path]": "PATH",
    "int": "N", "int range": "N", "float": "X", "float range": "X",
}  # fmt: skip


_TYPERS = {
    "ARGUMENTS_PANEL_TITLE": mark("Arguments"), "OPTIONS_PANEL_TITLE": mark("Options"),
    "COMMANDS_PANEL_TITLE": mark("Commands"), "ERRORS_PANEL_TITLE": mark("Error"),
    "DEFAULT_STRING": mark("[default: {}]"), "ENVVAR_STRING": mark("[env var: {}]"),
    "REQUIRED_LONG_STRING": mark("[required]"),
    "RICH_HELP": mark("Try [blue]'{command_path} {help_option}'[/] for help."),
}  # fmt: skip
"""Typer's own words, which it keeps in constants."""
_BEGINNINGS = (
    mark("Invalid value for "), mark("Invalid value: "), mark("No such option: "),
    mark("Missing argument "), mark("Missing option "), mark("No such command "),
)  # fmt: skip
"""How Typer's messages about a wrong command line begin."""
_CHOICES = mark(". Choose from: ")
OTHER_HELP = (
    mark("Show this message and exit."),
    mark("Install completion for the current shell."),
    mark("Show completion for the current shell, to copy it or customize the installation."),
)
"""Typer's own options."""


def plain_parameters(parameters: list[Any]) -> list[Any]:
    """Parameters with their help in the user's language and plain names of their values.

    An option has a name as in `--seed N`, an argument none.
    """
    for parameter in parameters:
        for name in ("help", "rich_help_panel", "show_default"):
            if isinstance(text := getattr(parameter, name, None), str):
                setattr(parameter, name, _(text))
        shown = getattr(parameter, "display_type_rich", None)
        if shown is None:
            continue  # an older Typer writes them otherwise
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = _nothing
        elif parameter.metavar is None:
            kind = str(shown(None) or "").strip("<>")
            parameter.metavar = _NAMES.get(kind, kind)
    return parameters


def with_plain_help(command: Any) -> Any:
    """The command, with its help in the user's language, for any width, and plain parameters."""
    in_users_language(command)
    if command.help:  # otherwise a line of the source ends a line on the screen
        command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(command.help))
    get_params, format_help = command.get_params, command.format_help
    get_usage = command.get_usage

    def show(ctx: Any, formatter: Any) -> None:
        translate_typer()
        format_help(ctx, formatter)

    command.get_params = lambda ctx: plain_parameters(get_params(ctx))
    command.get_usage = lambda ctx: get_usage(ctx).replace("Usage: ", _("Usage: "), 1)
    command.format_help = show
    return command


def in_users_language(command: Any) -> None:
    """Translates what a list of commands says about a command."""
    for name in ("help", "short_help", "rich_help_panel"):
        if isinstance(text := getattr(command, name, None), str):
            setattr(command, name, _(text))


def translate_typer() -> None:
    """Translates Typer's own words in a page of help or a usage error.

    Chinese has no spaces, and Typer cuts what it cannot break at one: its texts are folded instead.
    """
    if language() == ENGLISH:
        return
    from typer import rich_utils

    for name, text in _TYPERS.items():
        setattr(rich_utils, name, _(text))
    make = getattr(rich_utils, "_make_rich_text", None)
    if make is not None and make.__name__ != "fold":

        def fold(**settings: Any) -> Any:
            made = make(**settings)
            made.overflow = "fold"
            return made

        setattr(rich_utils, "_make_rich_text", fold)  # noqa: B010 - mypy knows it otherwise


def usage_message(message: str) -> str:
    """A message about a wrong command line, with Typer's words in the user's language."""
    message = message.replace(_CHOICES, _(_CHOICES), 1)
    for beginning in _BEGINNINGS:
        if message.startswith(beginning):
            return _(beginning) + message.removeprefix(beginning)
    return message


def _nothing(ctx: Any = None) -> None:  # noqa: ARG001 - Typer's signature
    return None


def examples(*commands: str) -> str:
    """The end of a help page: examples, one on a line."""
    if not commands[1:]:
        return _("Example:  {command}").format(command=commands[0])
    return "\n".join([_("Examples:"), *commands])
