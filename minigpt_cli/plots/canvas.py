"""What all pictures share: making a figure, fitting text into it, and encoding it as a file."""

import io
from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal, get_args
from unicodedata import category
from unicodedata import name as unicode_name

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findSystemFonts, fontManager, get_font
from matplotlib.text import Text

from minigpt_cli.errors import ConfigError
from minigpt_cli.io.text import printable
from minigpt_cli.language import _

Format = Literal["png", "svg"]
DPI = 150
OKABE_ITO = {
    "black": "#000000", "orange": "#E69F00", "sky blue": "#56B4E9", "green": "#009E73",
    "yellow": "#F0E442", "blue": "#0072B2", "vermilion": "#D55E00", "purple": "#CC79A7",
}  # fmt: skip
"""Colors that color-blind people tell apart (Okabe & Ito 2008)."""

_MOST = 400
"""Characters at most in a label; longer texts never fit a picture and are slow to measure."""
_LATIN = "DejaVu Sans"  # shipped with matplotlib
_CJK = (
    "Noto Sans CJK SC", "Source Han Sans SC", "Noto Sans SC", "PingFang SC", "Hiragino Sans GB",
    "Microsoft YaHei", "SimHei", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Noto Sans CJK JP",
    "Hiragino Sans", "Yu Gothic", "Malgun Gothic", "Arial Unicode MS", "Droid Sans Fallback",
)  # fmt: skip


_CJK_NAMES = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH")
_CJK_PACKAGES = "fonts-noto-cjk (Debian, Ubuntu), google-noto-sans-cjk-fonts (Fedora) or "
_CJK_PACKAGES += "font-noto-sans-cjk (Homebrew)"
_PACKAGES = "fonts-noto-core (Debian, Ubuntu) or google-noto-fonts-all (Fedora)"
_found: list[str] = []
"""Families that were found because a character was missing."""
_searched: set[int] = set()
"""Blocks of 256 characters that were looked for."""
_missing: set[str] = set()
"""Characters that were drawn as code points."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, which lays out its parts without overlap."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def in_picture(message: str) -> str:
    """A message in the user's language if there is a font for it; a picture is never half read."""
    shown = _(message)
    has_font = all(c.isspace() or ord(c) in _glyphs() or _find_font(c) for c in shown)
    return shown if has_font else message


def label(text: str) -> str:
    """Any text as a title, tick or mark, shown literally.

    A dollar sign does not start a formula; a character missing from all fonts becomes its code
    point, as in 4F60 (see `missing_font_note`).
    """
    return "".join(map(_shown, text))


def fitted(text: str, inches: float, size: float, keep: Literal["start", "end"] = "start") -> str:
    """Any text as a label no wider than this at a font size in points; "…" for what is left out."""
    if keep == "start":
        return _longest(text, inches, size, lambda kept: label(text[:kept]) + "…")
    return _longest(text, inches, size, lambda kept: "…" + label(text[len(text) - kept :]))


def name_in(
    figure: Figure, name: str, size: float = 10, beside: str = "", margin: float = 0.1
) -> str:
    """A label for a file, folder or model that fits on one line; a long one loses its beginning.

    Args:
        figure: the picture, whose width is the room.
        name: the name, whose end tells it from others.
        size: font size in points.
        beside: other text on the same line, at its longest.
        margin: inches of the line not available for text.
    """

    def end(kept: int) -> str:
        start = len(name) - kept
        folder = name.find("/", start)
        return "…" + label(name[start if folder < 0 else folder :])

    room = figure.get_figwidth() - margin - text_inches(beside, size)
    return _longest(name, room, size, end)


def _longest(text: str, inches: float, size: float, shortened: Callable[[int], str]) -> str:
    """The whole text if it fits, else the longest `shortened(kept)` that does."""
    if len(text) <= _MOST and text_inches(label(text), size) <= inches:
        return label(text)
    counts = range(1, min(len(text), _MOST + 1))
    kept = bisect_left(counts, True, key=lambda kept: text_inches(shortened(kept), size) > inches)
    return shortened(kept)


def text_inches(shown: str, size: float) -> float:
    """Width of a label in inches, in the fonts it will be drawn with."""
    if not shown:
        return 0.0
    text = Text(0, 0, shown, fontsize=size, fontfamily=families())
    text.set_figure(_ruler())
    return float(text.get_window_extent().width) / DPI


@cache
def _ruler() -> Figure:
    """A figure for measuring text."""
    figure = Figure(dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def _shown(char: str) -> str:
    if printable(char) != char:
        return f"{ord(char):04X}"
    if ord(char) not in _glyphs() and not _find_font(char):
        _missing.add(char)
        return f"{ord(char):04X}"
    return r"\$" if char == "$" else char


@cache
def families() -> list[str]:
    """Font families in order of preference: the default, then one that covers Chinese."""
    found = {font.name for font in fontManager.ttflist}
    return [_LATIN, *[name for name in _CJK if name in found][:1], *_found]


def _find_font(char: str) -> bool:
    """Looks on the machine for a font that has a character, and draws with it from then on.

    Fonts that were installed after matplotlib made its list are found too. A block of 256
    characters is looked for once.
    """
    block = ord(char) >> 8
    if block in _searched or category(char) in ("Cc", "Cf", "Cn", "Co", "Cs"):
        return False
    _searched.add(block)
    for family, file in _other_fonts():
        try:
            has = get_font(file).get_char_index(ord(char)) != 0
        except (OSError, RuntimeError):  # not a font after all
            continue
        if has:
            _found.append(family)
            families.cache_clear()
            _glyphs.cache_clear()
            return ord(char) in _glyphs()
    return False


def _other_fonts() -> list[tuple[str, str]]:
    """Every font of the machine by family and file: preferred ones for Chinese first, then Noto."""
    known = {font.fname for font in fontManager.ttflist}
    for file in sorted({*findSystemFonts()} - known):
        with suppress(OSError, RuntimeError):
            fontManager.addfont(file)
    plain = [
        f for f in fontManager.ttflist if f.style == "normal" and "resort" not in f.name.lower()
    ]
    order = {name: place for place, name in enumerate(_CJK)}
    ranked = sorted(
        plain,
        key=lambda f: (order.get(f.name, len(order)), not f.name.startswith("Noto Sans"), f.name),
    )
    return list({font.name: font.fname for font in reversed(ranked)}.items())[::-1]


def missing_font_note() -> str | None:
    """What was drawn as code points since the last call, and which package has a font for it."""
    if not _missing:
        return None
    shown = sorted(_missing)
    more = _(" and {number:,} more").format(number=len(shown) - 1) if shown[1:] else ""
    chinese = any(unicode_name(char, "").startswith(_CJK_NAMES) for char in shown)
    package = _CJK_PACKAGES if chinese else _PACKAGES
    _missing.clear()
    return _(
        "No font has {shown} (U+{code:04X}){more}, so the picture shows code points; "
        "install one, for example {package}, and draw it again"
    ).format(shown=shown[0], code=ord(shown[0]), more=more, package=package)


@cache
def _glyphs() -> frozenset[int]:
    """Every code point that these families can draw."""
    files = [fontManager.findfont(family) for family in families()]
    return frozenset().union(*(get_font(file).get_charmap() for file in files))


def image_format(path: Path) -> Format:
    """The image format that a file's extension stands for.

    Raises:
        ConfigError: the extension is neither .png nor .svg.
    """
    for known in get_args(Format):
        if path.suffix.lower() == f".{known}":
            return known  # type: ignore[no-any-return]
    raise ConfigError(_("--plot {path}: must end in .png or .svg").format(path=path))


def set_families(figure: Figure) -> None:
    """Has every text drawn in the fonts it was measured with."""
    for text in figure.findobj(Text):
        text.set_fontfamily(families())


def image_bytes(figure: Figure, file_format: Format) -> bytes:
    """The figure as an image file, byte for byte reproducible: no date and no random ids."""
    set_families(figure)
    buffer = io.BytesIO()
    fixed = {"Date": None} if file_format == "svg" else None
    with rc_context({"svg.hashsalt": "minigpt"}):
        figure.savefig(buffer, format=file_format, metadata=fixed)
    return buffer.getvalue()
