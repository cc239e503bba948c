"""A shuffled order that is computed, not stored."""

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 6
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


class Permutation:
    """A random-looking order of 0 to `size` - 1 that takes no memory.

    A Feistel network (Luby and Rackoff 1988) permutes a power of four that is at least `size`;
    whatever it puts beyond the end is permuted again until it is within ("cycle walking", Black and
    Rogaway 2002). The rounds mix by multiplication and shifts, as SplitMix64 does (Steele et al.
    2014).

    Args:
        size: how many numbers are permuted.
        rng: gives the keys, which choose the order.
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self._size = np.uint64(size)
        half = ((size - 1).bit_length() + 1) // 2
        self._half, self._mask = np.uint64(half), np.uint64((1 << half) - 1)
        self._keys = rng.integers(0, 1 << 64, _ROUNDS, dtype=np.uint64)

    def at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers at some places of the order, (N,)."""
        values = self._permuted(places.astype(np.uint64))
        while (outside := values >= self._size).any():
            values[outside] = self._permuted(values[outside])
        return values.astype(np.int64)

    def _permuted(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = values >> self._half, values & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & self._mask)
        return left << self._half | right


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit of the result depends on every bit of the value."""
    for shift, factor in zip((30, 27), _MIX, strict=True):
        values = (values ^ values >> np.uint64(shift)) * np.uint64(factor)
    return values ^ values >> np.uint64(31)
