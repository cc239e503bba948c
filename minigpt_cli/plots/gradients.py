"""Gradients against weights, as bars."""

import math

from matplotlib.figure import Figure

from minigpt_cli.inspection.gradients import Gradients, ParameterGradient, State
from minigpt_cli.plots.canvas import OKABE_ITO, name_in, new_figure

_COLORS: dict[State, str] = {
    "fine": OKABE_ITO["blue"], "dead": OKABE_ITO["black"], "exploding": OKABE_ITO["vermilion"],
    "no gradient": "#C00000",
}  # fmt: skip


def draw_gradients(facts: Gradients, model: str) -> Figure:
    """A bar a parameter: its gradient's norm over its weights', on a logarithmic axis.

    Args:
        facts: the norms.
        model: what to call it in the title.
    """
    count = len(facts.parameters)
    figure = new_figure(9, 1.6 + 0.2 * count)
    axes = figure.subplots()
    ratios = [one.ratio or 0.0 for one in facts.parameters]
    colors = [_COLORS[one.state] for one in facts.parameters]
    axes.barh(range(count), ratios, color=colors)
    axes.set_xscale("log")
    drawn = [ratio for ratio in ratios if 0 < ratio < math.inf] or [1.0]
    axes.set_xlim(
        *(
            10 ** way(math.log10(end))
            for way, end in ((math.floor, 0.9 * min(drawn)), (math.ceil, 1.1 * max(drawn)))
        )
    )
    for place, (one, color) in enumerate(zip(facts.parameters, colors, strict=True)):
        if mark := _mark(one):
            axes.text(
                0.99, place, mark, va="center", ha="right", fontsize=8, color=color,
                backgroundcolor="white", transform=axes.get_yaxis_transform(),
            )  # fmt: skip
    names = [one.name.removesuffix(".weight") for one in facts.parameters]
    axes.set_yticks(range(count), names, fontsize=8)
    axes.set_ylim(count - 0.4, -0.6)
    axes.set_xlabel("gradient norm / weight norm")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.suptitle(
        f"Gradients of step {facts.step:,}, loss {facts.loss:.4f}\n{name_in(figure, model)}",
        fontsize=10,
    )
    return figure


def _mark(one: ParameterGradient) -> str:
    """What a bar alone does not tell."""
    if one.state == "no gradient":
        return "NO GRADIENT"
    if one.state == "fine":
        return "" if one.ratio else "all weights are 0"
    return one.state
