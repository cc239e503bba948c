"""How high a chart must reach: a run that diverged shall not press the others flat."""

from collections.abc import Sequence

_TOO_HIGH = 10
"""Times the height of the tamest curve: beyond this a value is off the chart."""


def ceiling(curves: Sequence[Sequence[float]]) -> float | None:
    """Where to clip the curves; None where all of them can be shown.

    A curve's height is its first value, a loss before anything is learned, or what nine in ten of
    its values do not exceed, if that is more: only a few of them can be called too high.

    Args:
        curves: the values of each, in order.
    """
    curves = [curve for curve in curves if curve]
    heights = [max(curve[0], sorted(curve)[-1 - len(curve) // 10]) for curve in curves]
    too_high = _TOO_HIGH * min(heights, default=0.0)
    values = [value for curve in curves for value in curve]
    if too_high <= 0 or max(values) <= too_high:
        return None
    tame = max(height for height in heights if height <= too_high)
    return max(value for value in values if value <= 2 * tame)
