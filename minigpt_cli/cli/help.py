"""Help as people read it: no types in angle brackets, flags without a value."""

from typing import Any

_NAMES = {
    "bool": "", "str": "TEXT", "list[str]": "TEXT", "path": "PATH", "list[Path]": "PATH",
    "int": "N", "int range": "N", "float": "X", "float range": "X",
}  # fmt: skip


def plain_types(command: Any) -> Any:
    """Names the values of a command's options plainly, as in `--seed N`; returns the command."""
    for parameter in command.params:
        shown = getattr(parameter, "display_type_rich", None)
        if parameter.metavar is None and shown is not None:
            kind = str(shown(None) or "").strip("<>")
            parameter.metavar = _NAMES.get(kind, kind)
    return command


def examples(*commands: str) -> str:
    """The end of a help page: examples, one on a line."""
    return "\n  ".join([f"Example{'s' if commands[1:] else ''}:", *commands])
