"""Token embeddings as a map."""

from itertools import product
from typing import get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from minigpt_cli.inspection.embeddings import Embeddings, Kind, TokenPoint
from minigpt_cli.inspection.tokens import visible
from minigpt_cli.plots.canvas import (
    DPI,
    OKABE_ITO,
    families,
    fitted,
    in_picture,
    name_in,
    new_figure,
    set_families,
)

_COLORS: dict[Kind, str] = {
    "vowel": "vermilion", "consonant": "blue", "capital": "green", "letters": "blue",
    "word start": "green", "digit": "purple", "punctuation": "orange",
    "white space": "sky blue", "function word": "green", "ideograph": "black", "other": "black",
}  # fmt: skip
_LONGEST = 2.0
"""Inches at most for a token's name."""


def draw_embeddings(embeddings: Embeddings, model: str, width: float = 9) -> Figure:
    """Every token as a dot in the color of its kind, with its name beside it.

    The title names the `model`. The letters do not depend on the `width`, in inches.
    """
    figure = new_figure(width, max(5.5, width * 8 / 9))
    axes = figure.subplots()
    for kind in get_args(Kind):
        of_kind = [point for point in embeddings.points if point.kind == kind]
        for is_named, size, opacity in ((False, 6, 0.3), (True, 18, 1.0)):
            points = [point for point in of_kind if bool(point.neighbors) == is_named]
            axes.scatter(
                [point.x for point in points], [point.y for point in points], size,
                color=OKABE_ITO[_COLORS[kind]], alpha=opacity, linewidths=0,
                label=in_picture(kind) if of_kind and is_named else None,
            )  # fmt: skip
    for axis, share, name in zip(
        (axes.xaxis, axes.yaxis),
        embeddings.explained,
        (in_picture("first component"), in_picture("second component")),
        strict=True,
    ):
        axis.set_label_text(
            in_picture("{name}, {share:.1%} of the variance").format(name=name, share=share)
        )
    figure.legend(loc="outside lower center", ncols=5 if width >= 9 else 3, fontsize=10)
    some = in_picture(", {named:,} of {number:,} tokens named")
    name = name_in(figure, model, beside=some.format(named=999_999, number=999_999))
    title = figure.suptitle(
        in_picture("Token embeddings in two dimensions\n{name}").format(name=name), fontsize=10
    )
    set_families(figure)
    figure.draw_without_rendering()  # fixes the layout
    named = _name(axes, embeddings.named)
    if named < len(embeddings.points):
        title.set_text(title.get_text() + some.format(named=named, number=len(embeddings.points)))
    return figure


def _name(axes: Axes, points: tuple[TokenPoint, ...]) -> int:
    """Writes each name as near to its dot as there is room; returns how many fit."""
    dots = axes.transData.transform([(point.x, point.y) for point in points])  # pixels
    reach = 4.0
    taken = np.hstack((dots - reach, dots + reach))  # left, bottom, right, top
    frame = np.array(axes.bbox.extents)
    named = 0
    for point, dot in zip(points, dots, strict=True):
        name = axes.annotate(
            fitted(visible(point.token), _LONGEST, 10),
            (point.x, point.y), (0, 0), textcoords="offset points",
            fontsize=10, fontfamily=families(), ha="center", va="center",
            arrowprops={"arrowstyle": "-", "lw": 0.5, "alpha": 0.5, "shrinkA": 0, "shrinkB": 2},
        )  # fmt: skip
        size = np.array(Text.get_window_extent(name).size) + 2  # the text without its line
        place = _free_place(dot, size, taken, frame)
        if place is None:
            name.remove()
            continue
        center, box = place
        name.set_position(tuple((center - dot) * 72 / DPI))
        assert name.arrow_patch is not None
        name.arrow_patch.set_visible(bool((abs(center - dot) > size / 2 + 2 * reach).any()))
        taken = np.vstack((taken, box))
        named += 1
    return named


def _free_place(
    dot: NDArray[np.float64],
    size: NDArray[np.float64],
    taken: NDArray[np.float64],
    frame: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """The nearest center around a dot where a box of this size covers nothing, and that box."""
    for distance, angle in product(range(6, 90, 6), np.arange(16) * np.pi / 8 + np.pi / 4):
        direction = np.array((np.cos(angle), np.sin(angle)))
        center = dot + direction * (distance + size / 2)
        box = np.concatenate((center - size / 2, center + size / 2))
        inside = (box[:2] > frame[:2]).all() and (box[2:] < frame[2:]).all()
        covers = (box[:2] < taken[:, 2:]).all(1) & (taken[:, :2] < box[2:]).all(1)
        if inside and not covers.any():
            return center, box
    return None
