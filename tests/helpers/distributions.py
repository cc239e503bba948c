"""Whether draws follow a distribution."""

import math
from collections import Counter

from torch import Tensor


def assert_drawn_from(drawn: list[int], probabilities: Tensor) -> None:
    """Pearson's chi-squared, five standard deviations wide; what cannot come must not have come."""
    counts = Counter(drawn)
    possible = [i for i, p in enumerate(probabilities.tolist()) if p > 0]
    assert set(counts) <= set(possible)
    expected = {i: len(drawn) * float(probabilities[i]) for i in possible}
    assert min(expected.values()) >= 5, "too few draws for the test"
    statistic = sum((counts[i] - e) ** 2 / e for i, e in expected.items())
    freedom = len(possible) - 1
    assert statistic < freedom + 5 * math.sqrt(2 * max(1, freedom))
