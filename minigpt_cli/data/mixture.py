"""Which of several texts with weights each training window comes from."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SLOTS = 1024
"""Windows in which every text has its exact share: the resolution of weights."""


class Drawn(NamedTuple):
    """Where samples come from."""

    sources: NDArray[np.int64]
    """Index of each sample's text."""
    numbers: NDArray[np.int64]
    """The running number of each sample among those of its text, from 0."""


class Mixture:
    """The text and the window of each sample, as a pure function of the seed and its number.

    Samples come in periods of `SLOTS`, of which each text has its share, in an order of the
    period's own. Nothing is kept, so that a resumed run needs no saved position.

    Args:
        weights: of each text, positive; only their ratios matter.
        seed: seed of the order.
    """

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        self.shares = _shares(np.array(weights, dtype=np.float64))
        self._seed = seed
        self._period = lru_cache(maxsize=4)(self._shuffled)

    def at(self, samples: NDArray[np.int64]) -> Drawn:
        """Where samples with these numbers come from."""
        periods, places = np.divmod(samples, SLOTS)
        sources, numbers = np.empty_like(samples), np.empty_like(samples)
        for period in np.unique(periods).tolist():
            here = periods == period
            pattern, ranks = self._period(period)
            sources[here] = pattern[places[here]]
            numbers[here] = period * self.shares[sources[here]] + ranks[places[here]]
        return Drawn(sources, numbers)

    def _shuffled(self, period: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The text of each slot of a period, and how many slots of that text are before it."""
        pattern = np.repeat(np.arange(len(self.shares)), self.shares)
        np.random.default_rng([self._seed, period, len(pattern)]).shuffle(pattern)
        ranks = np.empty_like(pattern)
        for source, share in enumerate(self.shares.tolist()):
            ranks[pattern == source] = np.arange(share)
        return pattern, ranks


def _shares(weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Slots of each text, by largest remainders; no text is left without."""
    exact = weights / weights.sum() * SLOTS
    shares: NDArray[np.int64] = np.maximum(1, np.floor(exact).astype(np.int64))
    while (missing := SLOTS - int(shares.sum())) != 0:
        step = 1 if missing > 0 else -1
        order = np.argsort(-step * (exact - shares), kind="stable")
        allowed = [place for place in order.tolist() if shares[place] + step >= 1]
        shares[allowed[: abs(missing)]] += step
    return shares
