"""Training curves: loss above; learning rate, speed and gradient norm below, on one x axis."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from minigpt_cli.inspection.clipping import ceiling
from minigpt_cli.inspection.run_history import RunHistory, letter
from minigpt_cli.language import mark
from minigpt_cli.plots.canvas import OKABE_ITO, in_picture, name_in, new_figure
from minigpt_cli.runs.metrics import EvaluationRow, RewindRow, SpikeRow

TRAIN, VALIDATION, BEST, BAD = (
    OKABE_ITO[name] for name in ("blue", "vermilion", "green", "purple")
)
_EACH_RUN = [TRAIN, VALIDATION, BEST, BAD]
_EACH_RUN += [OKABE_ITO[name] for name in ("orange", "sky blue", "black")]  # yellow fades on white
_TITLE, _LEGEND = 12, 9  # points
_MOST_POINTS = 10_000
"""Points of a curve among which Matplotlib looks for the best place for a legend; it is slow."""
_LEGEND_MARGIN = 0.8
"""Inches for the sample line before a name in a legend, and the space around them."""
_BELOW = (
    ("learning_rate", mark("learning rate")),
    ("tokens_per_second", mark("tokens/s")),
    ("grad_norm", mark("gradient norm")),
)


def draw_runs(runs: Sequence[RunHistory], width: float = 9) -> Figure:
    """The curves of one run in detail, or those of several to compare.

    Args:
        runs: at least one run.
        width: width in inches; font sizes do not depend on it.
    """
    below = [
        (field, name)
        for field, name in _BELOW
        if any(getattr(step, field) is not None for run in runs for step in run.steps)
    ]
    figure = new_figure(width, 4.6 + 1.25 * len(below))
    ratios = [4.0, *[1.2] * len(below)]
    loss, *others = figure.subplots(
        1 + len(below), sharex=True, squeeze=False, height_ratios=ratios
    )[:, 0]
    if len(runs) == 1:
        _draw_loss(loss, runs[0])
        steps = runs[0].last_step
        one, many = in_picture(": loss over 1 step"), in_picture(": loss over {steps:,} steps")
        what = one if steps == 1 else many.format(steps=steps)
        title = name_in(figure, str(runs[0].path), _TITLE, what) + what
    else:
        _compare_losses(figure, loss, runs)
        title = in_picture(
            "{number} runs: validation loss (a star at its best), training loss in pale"
        ).format(number=len(runs))
        figure.set_figheight(figure.get_figheight() + 0.2 * len(runs))
        figure.legend(loc="outside lower center", frameon=False, fontsize=_LEGEND)
    figure.suptitle(title, fontsize=_TITLE)
    loss.set_ylabel(in_picture("loss (nats per token)"))
    losses = [[*_known(run, "loss")[1], *(row.val_loss for row in run.evaluations)] for run in runs]
    _clip(loss, losses)
    for axes, (field, name) in zip(others, below, strict=True):
        _draw_below(axes, runs, field, name)
    _style((loss, *others))
    figure.align_ylabels()
    return figure


def _draw_below(axes: Axes, runs: Sequence[RunHistory], field: str, name: str) -> None:
    """One of the smaller curves below the loss."""
    for i, run in enumerate(runs):
        known = _known(run, field)
        axes.plot(*known, color=_color(i), linewidth=1.2, marker=_mark(known))
    axes.set_ylabel(in_picture(name))
    if field == "grad_norm":  # the other curves have no outliers
        _clip(axes, [_known(run, field)[1] for run in runs])
    if field == "tokens_per_second":
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _style(panels: Sequence[Axes]) -> None:
    for axes in panels:
        axes.grid(color="#808080", alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    steps = panels[-1]
    steps.set_xlabel(in_picture("step"))
    steps.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    steps.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _draw_loss(axes: Axes, run: RunHistory) -> None:
    steps, losses = _known(run, "loss")
    if len(steps):
        mark = _mark((steps, losses))
        axes.plot(
            steps,
            losses,
            color=TRAIN,
            alpha=0.3,
            linewidth=0.8,
            label=in_picture("training, as logged"),
        )
        axes.plot(
            steps, smoothed(losses), color=TRAIN, linewidth=1.6, marker=mark,
            label=in_picture("training, smoothed"),
        )  # fmt: skip
    if run.evaluations:
        _draw_evaluations(axes, run, VALIDATION, in_picture("validation"))
    if run.overfitting:
        found = run.overfitting
        axes.axvspan(
            found.since,
            found.until,
            color=BAD,
            alpha=0.15,
            linewidth=0,
            label=in_picture("overfitting"),
        )
    for kind, name, style in (
        (SpikeRow, in_picture("spike"), ":"),
        (RewindRow, in_picture("rewind"), "--"),
    ):
        steps = [row.step for row in run.incidents if isinstance(row, kind)]
        for i, step in enumerate(steps):
            shown = name if i == 0 else ""
            axes.axvline(step, color=BAD, linestyle=style, linewidth=1, label=shown)
    if run.best:
        name = in_picture("best: {val_loss:.4f} at step {step:,}").format(
            val_loss=run.best.val_loss, step=run.best.step
        )
        _star(axes, run.best, BEST, name)
    points = len(run.steps) + len(run.evaluations)
    axes.legend(
        loc="best" if points <= _MOST_POINTS else "upper right",  # losses fall
        frameon=False,
        fontsize="small",
    )


def _compare_losses(figure: Figure, axes: Axes, runs: Sequence[RunHistory]) -> None:
    for i, run in enumerate(runs):
        steps, losses = _known(run, "loss")
        mark = _mark((steps, losses))
        axes.plot(steps, smoothed(losses), color=_color(i), alpha=0.45, linewidth=1, marker=mark)
        best = (
            in_picture(", best {val_loss:.4f}").format(val_loss=run.best.val_loss)
            if run.best
            else ""
        )
        name = name_in(figure, str(run.path), _LEGEND, f"{letter(i)}  {best}", _LEGEND_MARGIN)
        _draw_evaluations(axes, run, _color(i), f"{letter(i)}  {name}{best}")
        if run.best:
            _star(axes, run.best, _color(i), "")


def _draw_evaluations(axes: Axes, run: RunHistory, color: str, name: str) -> None:
    steps = [row.step for row in run.evaluations]
    losses = [row.val_loss for row in run.evaluations]
    axes.plot(steps, losses, color=color, marker="o", markersize=4, label=name)


def _star(axes: Axes, best: EvaluationRow, color: str, name: str) -> None:
    axes.plot(best.step, best.val_loss, "*", color=color, markersize=13, label=name)


def _mark(known: tuple[list[int], list[float]]) -> str:
    """The marker of a curve: a line needs two points, so a single one is drawn as a dot."""
    return "o" if len(known[0]) == 1 else ""


def _clip(axes: Axes, curves: Sequence[Sequence[float]]) -> None:
    """Cuts off outliers that would flatten everything else, and says so."""
    top = ceiling(curves)
    if top is None:
        return
    values = [value for curve in curves for value in curve]
    low = min(values)
    room = 0.05 * (top - low) or 0.05 * top
    axes.set_ylim(low - room, top + room)
    note = in_picture("clipped at {top:.3g}; the highest is {highest:.3g}").format(
        top=top, highest=max(values)
    )
    axes.set_title(note, loc="right", fontsize="small")


def _color(i: int) -> str:
    return _EACH_RUN[i % len(_EACH_RUN)]


def _known(run: RunHistory, field: str) -> tuple[list[int], list[float]]:
    """The steps that have a value for this field, and the values."""
    rows = [(step.step, getattr(step, field)) for step in run.steps]
    known = [(step, value) for step, value in rows if value is not None]
    return [step for step, _ in known], [value for _, value in known]


def smoothed(values: Sequence[float]) -> list[float]:
    """A moving average over a fifteenth of the values, narrower at both ends."""
    reach = len(values) // 30
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    before = np.minimum(at, reach)
    after = np.minimum(before, at[::-1])  # the first losses fall too steeply for a one-sided mean
    return [float(x) for x in (sums[at + after + 1] - sums[at - before]) / (before + after + 1)]
