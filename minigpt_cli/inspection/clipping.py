"""How high a chart reaches: a run that diverged must not flatten the other curves."""

from collections.abc import Sequence

_TOO_HIGH = 10
"""Values above this many times the height of the lowest curve are off the chart."""


def ceiling(curves: Sequence[Sequence[float]]) -> float | None:
    """Where to clip the curves; None when everything fits.

    The height of a curve is its first value (the loss before anything is learned) or its 90th
    percentile, whichever is more: only a few of its values can be too high.
    """
    curves = [curve for curve in curves if curve]
    heights = [max(curve[0], sorted(curve)[-1 - len(curve) // 10]) for curve in curves]
    too_high = _TOO_HIGH * min(heights, default=0.0)
    values = [value for curve in curves for value in curve]
    if too_high <= 0 or max(values) <= too_high:
        return None
    typical = max(height for height in heights if height <= too_high)
    return max(value for value in values if value <= 2 * typical)
