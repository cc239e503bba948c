"""Help as people read it: whole paragraphs, no types in angle brackets, flags without a value."""

import inspect
import re
from typing import Any

_NAMES = {
    "bool": "", "str": "TEXT", "list[str]": "TEXT", "path": "PATH", "list[Path]": "PATH",
    "int": "N", "int range": "N", "float": "X", "float range": "X",
}  # fmt: skip


def plain_types(parameters: list[Any]) -> list[Any]:
    """Names the values of options plainly, as in `--seed N`, and those of arguments not at all."""
    for parameter in parameters:
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
    """The command, with help that fits any width and names the values of its parameters plainly."""
    if command.help:  # otherwise a line of the source ends a line on the screen
        command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(command.help))
    original = command.get_params
    command.get_params = lambda ctx: plain_types(original(ctx))
    return command


def _nothing(ctx: Any = None) -> None:  # noqa: ARG001 - Typer's signature
    return None


def examples(*commands: str) -> str:
    """The end of a help page: examples, one on a line."""
    return "\n".join(["Examples:", *commands]) if commands[1:] else f"Example:  {commands[0]}"
