"""Attention weights as heat maps: which token looks at which."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from minigpt_cli.inspection.attention import Attention, Head
from minigpt_cli.inspection.tokens import visible
from minigpt_cli.plots.canvas import label, name_in, new_figure

_INCHES_PER_TOKEN = 0.13
_WIDEST = 13.0
"""Inches of all maps side by side: a screen shows no more without shrinking the letters."""
_SHORT = 14


def draw_attention(facts: Attention, model: str) -> Figure:
    """One heat map for each head, a layer a row; a single head fills the picture.

    Args:
        facts: the heads to draw.
        model: what to call it in the title.
    """
    tokens = [_short(token) for token in facts.window.tokens]
    rows = len({head.layer for head in facts.heads})
    columns = len(facts.heads) // rows
    alone = len(facts.heads) == 1
    least, most = (5.0 if alone else 1.7), max(1.4, _WIDEST / columns)
    side = min(max(least, _INCHES_PER_TOKEN * len(tokens)), most)
    figure = new_figure(columns * side + 1.6, rows * side + 1.1)
    panels = figure.subplots(rows, columns, squeeze=False)
    image = None
    for panel, head in zip(panels.flat, facts.heads, strict=True):
        image = _map(panel, head)
        if not alone:
            panel.set_title(f"layer {head.layer}, head {head.head}", fontsize=8)
        grid = panel.get_subplotspec()
        assert grid is not None
        _name(panel, tokens, side, x=grid.is_last_row(), y=grid.is_first_col())
    assert image is not None
    every = _every(tokens, side)
    some = f" (one of {every} is named)" if every > 1 else ""
    bar = figure.colorbar(image, ax=panels, shrink=min(1.0, 4 / (rows * side)), aspect=25)
    bar.set_label("attention weight")
    bar.set_ticks([0, 0.05, 0.2, 0.5, 1], labels=["0", "0.05", "0.2", "0.5", "1"])
    which = f"layer {facts.heads[0].layer}, head {facts.heads[0].head}" if alone else "each head"
    figure.suptitle(f"Where {which} looks\n{name_in(figure, model)}", fontsize=10)
    figure.supxlabel(f"looks at{some}", fontsize=9)
    figure.supylabel("token", fontsize=9)
    return figure


def _map(panel: Axes, head: Head) -> AxesImage:
    """Later tokens, which it cannot see, stay white; roots of the weights are colored evenly."""
    seen = np.tri(len(head.weights), dtype=bool)
    weights = np.ma.masked_array(head.weights, ~seen)
    return panel.imshow(weights, cmap="viridis", norm=PowerNorm(0.5, vmin=0, vmax=1))


def _name(panel: Axes, tokens: list[str], side: float, x: bool, y: bool) -> None:
    """Names the tokens along the axes, as many as have room."""
    every = _every(tokens, side)
    places = range(0, len(tokens), every)
    names = [label(tokens[place]) for place in places]
    size = min(9.0, 72 * 0.8 * side * every / len(tokens))
    upright = max(map(len, tokens)) > 1
    panel.set_xticks(places, names if x else [], fontsize=size, rotation=90 if upright else 0)
    panel.set_yticks(places, names if y else [], fontsize=size)
    panel.tick_params(length=2 if every > 1 else 0, pad=2)


def _every(tokens: list[str], side: float) -> int:
    """How many tokens share the room that one name needs."""
    return math.ceil(len(tokens) * 0.105 / side)


def _short(token: str) -> str:
    name = visible(token)
    return name if len(name) <= _SHORT else f"{name[: _SHORT - 1]}…"
