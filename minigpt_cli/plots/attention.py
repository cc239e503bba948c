"""Attention weights as heat maps: which token looks at which."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from minigpt_cli.errors import ConfigError
from minigpt_cli.inspection.attention import Attention, Head
from minigpt_cli.inspection.tokens import visible
from minigpt_cli.language import _
from minigpt_cli.plots.canvas import fitted, in_picture, name_in, new_figure, text_inches

_INCHES_PER_TOKEN = 0.13
_WIDEST = 13.0
"""Inches for all maps side by side; a wider picture would be shrunk to fit a screen."""
MOST_HEADS = 144
"""Heads in a picture, as in the smallest GPT-2; its layout takes minutes for more."""
_LONGEST = 1.0
"""Inches at most for a token's name."""


_BESIDE, _COLUMN_SIZE, _COLUMN_LONGEST = 2, 10.0, 0.6
"""In a narrow column: maps beside each other, points of the letters, inches of a token's name."""


@dataclass(frozen=True)
class _Ticks:
    """The names along both axes of a map."""

    every: int
    """One token in this many is named."""
    places: range
    names: list[str]
    size: float
    """Font size in points."""
    upright: bool
    """Whether the names below a map are rotated."""


def draw_attention(attention: Attention, model: str) -> Figure:
    """One heat map per head, one row per layer; a single head fills the picture.

    The title names the `model`.

    Raises:
        ConfigError: there are more than `MOST_HEADS`.
    """
    if len(attention.heads) > MOST_HEADS:
        raise ConfigError(
            _(
                "{number} heads are too many for a picture (at most {most_heads}); choose a "
                "layer, or a layer and a head"
            ).format(number=len(attention.heads), most_heads=MOST_HEADS)
        )
    rows = len({head.layer for head in attention.heads})
    columns = len(attention.heads) // rows
    alone = len(attention.heads) == 1
    least, most = (5.0 if alone else 1.7), max(1.4, _WIDEST / columns)
    side = min(max(least, _INCHES_PER_TOKEN * len(attention.window.tokens)), most)
    ticks = _ticks(attention.window.tokens, side, 9.0)
    longest = max(text_inches(name, ticks.size) for name in ticks.names)
    above = longest if ticks.upright else 0.0
    figure = new_figure(columns * side + 1.6 + longest, rows * side + 1.1 + above)
    panels = figure.subplots(rows, columns, squeeze=False)
    image = None
    for panel, head in zip(panels.flat, attention.heads, strict=True):
        image = _map(panel, head)
        if not alone:
            panel.set_title(
                in_picture("layer {layer}, head {head}").format(layer=head.layer, head=head.head),
                fontsize=8,
            )
        grid = panel.get_subplotspec()
        assert grid is not None
        _name(panel, ticks, x=grid.is_last_row(), y=grid.is_first_col())
    assert image is not None
    some = (
        in_picture(" (one of {every} is named)").format(every=ticks.every)
        if ticks.every > 1
        else ""
    )
    bar = figure.colorbar(image, ax=panels, shrink=min(1.0, 4 / (rows * side)), aspect=25)
    _label_scale(bar)
    which = (
        in_picture("layer {layer}, head {head}").format(
            layer=attention.heads[0].layer, head=attention.heads[0].head
        )
        if alone
        else in_picture("each head")
    )
    figure.suptitle(
        in_picture("Where {which} looks\n{model}").format(
            which=which, model=name_in(figure, model)
        ),
        fontsize=10,
    )
    figure.supxlabel(in_picture("looks at{some}").format(some=some), fontsize=9)
    figure.supylabel(in_picture("token"), fontsize=9)
    return figure


def draw_attention_column(attention: Attention, title: str, width: float) -> Figure:
    """The same maps for a narrow column: a few beside each other, the color scale below them.

    Args:
        attention: the heads to draw.
        title: above the maps.
        width: inches.
    """
    count, columns = len(attention.heads), min(len(attention.heads), _BESIDE)
    rows = math.ceil(count / columns)
    side = (width - 1.0) / columns - 0.2
    ticks = _ticks(attention.window.tokens, side, _COLUMN_SIZE, _COLUMN_LONGEST, _COLUMN_SIZE)
    figure = new_figure(width, rows * (side + 0.45) + 2.2)
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.flat[count:]:
        panel.set_visible(False)
    image = None
    for i, (panel, head) in enumerate(zip(panels.flat, attention.heads, strict=False)):
        image = _map(panel, head)
        panel.set_title(
            in_picture("layer {layer}, head {head}").format(layer=head.layer, head=head.head),
            fontsize=_COLUMN_SIZE,
        )
        _name(panel, ticks, x=i + columns >= count, y=i % columns == 0)
    assert image is not None
    bar = figure.colorbar(image, ax=panels, location="bottom", shrink=0.8, aspect=30)
    bar.ax.tick_params(labelsize=_COLUMN_SIZE)
    _label_scale(bar, _COLUMN_SIZE)
    some = (
        in_picture(" (one in {every} is named)").format(every=ticks.every)
        if ticks.every > 1
        else ""
    )
    figure.suptitle(
        in_picture("{title}\nrow: a token; column: what it looks at{some}").format(
            title=title, some=some
        ),
        fontsize=_COLUMN_SIZE,
    )
    return figure


def _label_scale(bar: Colorbar, size: float = 10.0) -> None:
    bar.set_label(in_picture("attention weight (square-root scale)"), fontsize=size)
    bar.set_ticks([0, 0.05, 0.2, 0.5, 1], labels=["0", "0.05", "0.2", "0.5", "1"])


def _map(panel: Axes, head: Head) -> AxesImage:
    """Later tokens, which the head cannot see, stay white; colors follow the square root."""
    seen = np.tri(len(head.weights), dtype=bool)
    weights = np.ma.masked_array(head.weights, ~seen)
    return panel.imshow(weights, cmap="viridis", norm=PowerNorm(0.5, vmin=0, vmax=1))


def _ticks(
    tokens: Sequence[str], side: float, most: float, longest: float = _LONGEST, least: float = 6.0
) -> _Ticks:
    """Names for as many tokens as fit along a side of this many inches.

    Args:
        tokens: their texts.
        side: inches.
        most: points of the largest letters.
        longest: inches at most for a name.
        least: points of the smallest letters.
    """
    every = math.ceil(len(tokens) * max(0.105, least / 72 / 0.8) / side)
    size = min(most, 72 * 0.8 * side * every / len(tokens))
    names = [fitted(visible(token), longest, size) for token in tokens[::every]]
    return _Ticks(every, range(0, len(tokens), every), names, size, max(map(len, names)) > 1)


def _name(panel: Axes, ticks: _Ticks, x: bool, y: bool) -> None:
    turned = 90 if ticks.upright else 0
    panel.set_xticks(ticks.places, ticks.names if x else [], fontsize=ticks.size, rotation=turned)
    panel.set_yticks(ticks.places, ticks.names if y else [], fontsize=ticks.size)
    panel.tick_params(length=2 if ticks.every > 1 else 0, pad=2)
