"""The token ids of several files as one array."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

_MOST_OPEN = 64
"""Files that are mapped at a time: systems limit how many may be open."""


class ShardedTokens:
    """Token ids on disk, in several files, with what is needed of a one-dimensional array.

    Args:
        files: each with its number of ids, in order.
        dtype: of the ids.
    """

    def __init__(self, files: Sequence[tuple[Path, int]], dtype: str) -> None:
        self.dtype = np.dtype(dtype)
        self._files = [(path, count) for path, count in files if count]
        self._starts = np.cumsum([0, *(count for _, count in self._files)])
        self._mapped = lru_cache(maxsize=_MOST_OPEN)(self._map)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, key: int | np.integer[Any]) -> np.integer[Any]: ...
    @overload
    def __getitem__(self, key: slice | NDArray[np.integer[Any]]) -> NDArray[Any]: ...
    def __getitem__(self, key: Any) -> Any:
        """The ids at a place, in a slice, or at an array of places (in an array of that shape)."""
        if isinstance(key, slice):
            first, last, step = key.indices(len(self))
            if step != 1:
                return self[np.arange(first, last, step)]
            return self._between(first, max(first, last))
        places = np.asarray(key)
        if places.size and not -len(self) <= places.min() <= places.max() < len(self):
            raise IndexError(f"beyond the {len(self)} tokens")
        if not places.size:
            return np.empty(places.shape, dtype=self.dtype)
        rows = places.reshape(-1, places.shape[-1] if places.ndim else 1) % len(self)
        found = np.empty(rows.shape, dtype=self.dtype)
        for row, into in zip(rows, found, strict=True):
            self._fill(row, into)
        return found.reshape(places.shape)[()]

    def __iter__(self) -> Iterator[Any]:
        for index in range(len(self._files)):
            yield from self._mapped(index)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All ids in memory."""
        return self._between(0, len(self)).astype(dtype or self.dtype, copy=bool(copy))

    def max(self) -> int:
        """The highest id.

        Raises:
            ValueError: there are none.
        """
        return max(int(self._mapped(index).max()) for index in range(len(self._files)))

    def tolist(self) -> list[int]:
        """All ids."""
        return [int(id_) for id_ in self]

    def _map(self, index: int) -> NDArray[Any]:
        path, count = self._files[index]
        return np.memmap(path, dtype=self.dtype, mode="r", shape=(count,))

    def _between(self, first: int, last: int) -> NDArray[Any]:
        parts = [np.empty(0, dtype=self.dtype)]
        for index, start in enumerate(self._starts[:-1].tolist()):
            if start < last and first < self._starts[index + 1]:
                parts.append(self._mapped(index)[max(0, first - start) : last - start])
        return parts[1] if len(parts) == 2 else np.concatenate(parts)

    def _fill(self, places: NDArray[np.int64], into: NDArray[Any]) -> None:
        """Puts the ids at some places, most often in one file, into an array."""
        first, last = np.searchsorted(self._starts, (places.min(), places.max()), "right") - 1
        for index in range(first, last + 1):
            start, end = self._starts[index], self._starts[index + 1]
            within = (places >= start) & (places < end) if first < last else slice(None)
            into[within] = self._mapped(index)[places[within] - start]
