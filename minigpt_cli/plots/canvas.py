"""What all pictures share: how a figure is made, and how it is written."""

import io
from pathlib import Path
from typing import Literal, get_args

from matplotlib import rc_context
from matplotlib.figure import Figure

from minigpt_cli.errors import ConfigError

Format = Literal["png", "svg"]
DPI = 150


def new_figure(width: float, height: float) -> Figure:
    """An empty figure whose parts make room for each other.

    Args:
        width: inches.
        height: inches.
    """
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def image_format(path: Path) -> Format:
    """The format that a file's name asks for.

    Raises:
        ConfigError: it is none that can be drawn.
    """
    for known in get_args(Format):
        if path.suffix.lower() == f".{known}":
            return known  # type: ignore[no-any-return]
    raise ConfigError(f"--plot {path}: ends in neither .png nor .svg; name it so")


def image_bytes(figure: Figure, file_format: Format) -> bytes:
    """The figure as a file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    fixed = {"Date": None} if file_format == "svg" else None
    with rc_context({"svg.hashsalt": "minigpt"}):
        figure.savefig(buffer, format=file_format, metadata=fixed)
    return buffer.getvalue()
