"""Curves on a terminal: in braille dots where the encoding has them, else in ASCII."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from plotille import Canvas
from rich.cells import cell_len
from rich.text import Text

from minigpt_cli.inspection.clipping import ceiling
from minigpt_cli.language import _

_AXIS = {True: ("│", "└", "─"), False: ("|", "+", "-")}
_MARGIN = 8
"""Columns for labels, so that charts below each other align."""
_FINEST = 1e6
"""Dots in a chart at most; a range that this many parts of would be 0 counts as a single value."""
_UPPER_DOTS, _LOWER_DOTS = 0x1B, 0xE4


@dataclass(frozen=True)
class Series:
    """Points, joined by a line, each marked by a character, or both."""

    points: Sequence[tuple[float, float]]
    color: str | None = None
    line: bool = True
    mark: str = ""


def chart(
    series: Sequence[Series],
    *,
    steps: tuple[int, int],
    width: int,
    height: int,
    unicode: bool,
    label: Callable[[float], str] = "{:.3g}".format,
    axis: bool = True,
) -> Text:
    """Draws all series into one chart, later ones over earlier ones.

    Values too far above the others are clipped at the top, and a line says so.

    Args:
        series: at least one point altogether.
        steps: first and last x.
        width: columns, labels included.
        height: rows, without the x axis.
        unicode: whether the terminal can show more than ASCII.
        label: formats the label of a height.
        axis: whether to add the x axis, in two more rows.
    """
    heights = [y for one in series for _x, y in one.points]
    curves = [one for one in series if one.line] or series
    top = ceiling([[y for _x, y in one.points] for one in curves])
    least, most = min(heights), max(heights) if top is None else top
    low, high = _apart(least, most)
    rows = {row: label(high - (high - low) * row / (height - 1)) for row in _labeled(height)}
    if least == most:  # it runs through the middle
        rows = {height // 2: label(least)}
    margin = max(_MARGIN, *map(len, rows.values()))
    first, last = _apart(*steps)
    canvas = Canvas(
        columns := max(10, width - margin - 2),
        height,
        xmin=first,
        xmax=_beyond(first, last, 2 * columns),
        ymin=low,
        ymax=_beyond(low, high, 4 * height),
    )
    for one in series:
        _draw(canvas, replace(one, points=[(x, min(y, most)) for x, y in one.points]))
    bar, corner, dash = _AXIS[unicode]
    lines = [
        f"{rows.get(row, ''):>{margin}} {bar}{line}"
        for row, line in enumerate(_dots(canvas.plot(), unicode).splitlines())
    ]
    if top is not None:
        note = _("clipped at {top}; the highest is {highest}").format(
            top=label(top), highest=label(max(heights))
        )
        lines.insert(0, f"{'':{margin}}  {note}"[:width])
    if axis:
        lines += [
            f"{'':{margin}} {corner}{dash * columns}",
            f"{'':{margin}}  {_steps_below(steps, columns)}",
        ]
    return Text("\n").join(Text.from_ansi(line) for line in lines)


def _steps_below(steps: tuple[int, int], columns: int) -> str:
    """The first and the last step, at both ends of the x axis."""
    begin, end = f"{steps[0]:,}", _("step {step:,}").format(step=steps[1])
    return begin + " " * (columns - len(begin) - cell_len(end)) + end


def _draw(canvas: Canvas, series: Series) -> None:
    if series.line:
        pairs = zip(series.points, series.points[1:], strict=False)
        for (x0, y0), (x1, y1) in pairs:
            canvas.line(x0, y0, x1, y1, color=series.color)
    if series.mark or len(series.points) == 1:
        for x, y in series.points:
            canvas.point(x, y, color=series.color, marker=series.mark or None)


def _labeled(height: int) -> list[int]:
    """The rows with a label: first, last and, if there is room, one in the middle."""
    return [0, height // 2, height - 1] if height > 4 else [0, height - 1]


def _apart(low: float, high: float) -> tuple[float, float]:
    """Limits that differ, so that a constant runs through the middle of the chart.

    Slightly below it, since an even number of rows has no middle one.
    """
    if (high - low) / _FINEST > 0:
        return low, high
    room = abs(low) / 2
    if not room / _FINEST > 0:
        low, room = 0.0, 0.5
    return low - room, high + 1.02 * room


def _beyond(low: float, high: float, dots: int) -> float:
    """The canvas excludes its upper limit; with this one, `high` is its last dot."""
    return low + (high - low) * dots / (dots - 1)


def _dots(drawn: str, unicode: bool) -> str:
    """Turns blank braille into spaces and, without Unicode, dots into similar ASCII."""

    def ascii_dot(match: re.Match[str]) -> str:
        dots = ord(match.group()) - 0x2800
        above, below = dots & _UPPER_DOTS, dots & _LOWER_DOTS
        return ":" if above and below else "'" if above else "."

    drawn = drawn.replace("\u2800", " ")
    return drawn if unicode else re.sub("[\u2801-\u28ff]", ascii_dot, drawn)
