"""A forward pass as bars: parameters, FLOPs and memory of each step."""

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from minigpt_cli.inspection.shapes import ShapeTrace
from minigpt_cli.plots.canvas import OKABE_ITO, in_picture, name_in, new_figure


def draw_shapes(trace: ShapeTrace, model: str) -> Figure:
    """Three columns of bars, one line per step; blocks are alike, so only the first is shown.

    The title names the `model`.
    """
    steps = [step for step in trace.steps if not step.layer]
    names = [
        f"{step.name if step.layer is None else f'block 0  {step.name}'}     "
        f"{step.outputs[0].axes} = {'×'.join(map(str, step.outputs[0].sizes))}"
        for step in steps
    ]
    figure = new_figure(12, 1.4 + 0.24 * len(steps))
    panels = figure.subplots(1, 3, sharey=True)
    for panel, title, unit, values, color in (
        (panels[0], in_picture("parameters"), "", [step.parameters for step in steps], "blue"),
        (panels[1], in_picture("FLOPs"), "", [step.flops for step in steps], "orange"),
        (panels[2], in_picture("activations"), "B", [step.bytes for step in steps], "green"),
    ):
        panel.barh(range(len(steps)), values, color=OKABE_ITO[color])
        panel.set_title(title, fontsize=10)
        panel.xaxis.set_major_formatter(EngFormatter(unit=unit))
        panel.tick_params(axis="x", labelsize=8)
        panel.grid(axis="x", alpha=0.3)
        panel.set_axisbelow(True)
    panels[0].set_yticks(range(len(steps)), names, fontsize=8)
    panels[0].set_ylim(len(steps) - 0.4, -0.6)
    blocks = 1 + max(step.layer or 0 for step in trace.steps)
    more = in_picture(", the first of {blocks} blocks").format(blocks=blocks) if blocks > 1 else ""
    figure.suptitle(
        in_picture("The forward pass of {tokens:,} tokens{more}\n{model}").format(
            tokens=trace.tokens, more=more, model=name_in(figure, model)
        ),
        fontsize=10,
    )
    return figure
