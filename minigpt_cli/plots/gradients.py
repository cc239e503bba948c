"""Gradient norms relative to weight norms, as bars."""

import math

from matplotlib.figure import Figure

from minigpt_cli.inspection.gradients import Gradients, ParameterGradient, State
from minigpt_cli.plots.canvas import OKABE_ITO, in_picture, name_in, new_figure

_COLORS: dict[State, str] = {
    "fine": OKABE_ITO["blue"], "dead": OKABE_ITO["black"], "exploding": OKABE_ITO["vermilion"],
    "no gradient": "#C00000",
}  # fmt: skip


def draw_gradients(gradients: Gradients, model: str) -> Figure:
    """One bar per parameter: gradient norm over weight norm, on a logarithmic axis.

    The title names the `model`.
    """
    count = len(gradients.parameters)
    figure = new_figure(9, 1.6 + 0.2 * count)
    axes = figure.subplots()
    ratios = [one.ratio or 0.0 for one in gradients.parameters]
    colors = [_COLORS[one.state] for one in gradients.parameters]
    axes.barh(range(count), ratios, color=colors)
    axes.set_xscale("log")
    drawn = [ratio for ratio in ratios if 0 < ratio < math.inf] or [1.0]
    axes.set_xlim(
        10 ** math.floor(math.log10(0.9 * min(drawn))),
        10 ** math.ceil(math.log10(1.1 * max(drawn))),
    )
    for place, (one, color) in enumerate(zip(gradients.parameters, colors, strict=True)):
        if mark := _mark(one):
            axes.text(
                0.99, place, mark, va="center", ha="right", fontsize=8, color=color,
                backgroundcolor="white", transform=axes.get_yaxis_transform(),
            )  # fmt: skip
    names = [one.name.removesuffix(".weight") for one in gradients.parameters]
    axes.set_yticks(range(count), names, fontsize=8)
    axes.set_ylim(count - 0.4, -0.6)
    axes.set_xlabel(in_picture("gradient norm / weight norm"))
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    what = in_picture("Gradients of step {step:,}, loss {loss:.4f}").format(
        step=gradients.step, loss=gradients.loss
    )
    figure.suptitle(f"{what}\n{name_in(figure, model)}", fontsize=10)
    return figure


def _mark(one: ParameterGradient) -> str:
    """The label for what the bar alone does not show."""
    if one.state == "no gradient":
        return in_picture("NO GRADIENT")
    if one.state == "fine":
        return "" if one.ratio else in_picture("all weights are 0")
    return in_picture(one.state)
