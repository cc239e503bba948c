"""What all pictures share: how a figure is made, how texts look in it, and how it is written."""

import io
import unicodedata
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager, get_font
from matplotlib.text import Text

from minigpt_cli.errors import ConfigError

Format = Literal["png", "svg"]
DPI = 150
OKABE_ITO = {
    "black": "#000000", "orange": "#E69F00", "sky blue": "#56B4E9", "green": "#009E73",
    "yellow": "#F0E442", "blue": "#0072B2", "vermilion": "#D55E00", "purple": "#CC79A7",
}  # fmt: skip
"""Colors that color-blind people tell apart (Okabe & Ito 2008)."""

_EM = 0.62
"""Width of a usual letter over its size."""
_LATIN = "DejaVu Sans"  # matplotlib brings it along
_CJK = (
    "Noto Sans CJK SC", "Source Han Sans SC", "Noto Sans SC", "PingFang SC", "Hiragino Sans GB",
    "Microsoft YaHei", "SimHei", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Noto Sans CJK JP",
    "Hiragino Sans", "Yu Gothic", "Malgun Gothic", "Arial Unicode MS", "Droid Sans Fallback",
)  # fmt: skip


def new_figure(width: float, height: float) -> Figure:
    """An empty figure whose parts make room for each other.

    Args:
        width: inches.
        height: inches.
    """
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def label(text: str) -> str:
    """A text from outside for a title, a tick or a mark: shown as it is.

    A dollar sign begins no formula, and a character that no font here has is named: U+4F60.
    """
    return "".join(map(_shown, text))


def name_in(figure: Figure, name: str, size: float = 10, beside: int = 0) -> str:
    """A label for a file, a folder or a model that fits in a line: of a long one, the end.

    Args:
        figure: its width is the room.
        name: its end tells it from others.
        size: of the letters, points.
        beside: how many letters else stand in the line.
    """
    room = figure.get_figwidth() * 72 / (_EM * size) - beside
    if sum(map(_widths, name)) <= room:
        return label(name)
    start = len(name)
    while start and (room := room - _widths(name[start - 1])) >= 1:  # 1 is the sign's
        start -= 1
    folder = name.find("/", start)
    return "…" + label(name[start if folder < 0 else folder :])


def _shown(char: str) -> str:
    if ord(char) not in _glyphs():
        return f"U+{ord(char):04X}"
    return r"\$" if char == "$" else char


def _widths(char: str) -> int:
    """How many letters' room a character takes."""
    return 2 if unicodedata.east_asian_width(char) in "WF" else len(_shown(char))


@cache
def families() -> list[str]:
    """Font families for any text, in order: the usual one, then one that has Chinese."""
    found = {font.name for font in fontManager.ttflist}
    return [_LATIN, *[name for name in _CJK if name in found][:1]]


@cache
def _glyphs() -> frozenset[int]:
    """Every character that these families can draw."""
    files = [fontManager.findfont(family) for family in families()]
    return frozenset().union(*(get_font(file).get_charmap() for file in files))


def smallest_letters(figure: Figure) -> float:
    """The size of the smallest text in a figure, points."""
    return min(
        float(text.get_fontsize()) for text in figure.findobj(Text) if text.get_text().strip()
    )


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
    """The figure as a file, with neither a date nor a random name in it."""
    for text in figure.findobj(Text):
        text.set_fontfamily(families())
    buffer = io.BytesIO()
    fixed = {"Date": None} if file_format == "svg" else None
    with rc_context({"svg.hashsalt": "minigpt"}):
        figure.savefig(buffer, format=file_format, metadata=fixed)
    return buffer.getvalue()
