"""Batches made in a thread, before they are asked for."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

_AHEAD = 2
Batch = tuple[Tensor, Tensor]


class BatchesAhead:
    """Makes the next batches while an accelerator works, in memory that it copies from by itself.

    A batch is a function of its number, so nothing changes but when it is made. On a CPU there is
    nothing to gain: a batch takes less than a thousandth of a step, and the thread wants a core.

    Args:
        make: gives a batch by its number.
        pin: whether to put batches into pinned memory.
    """

    def __init__(self, make: Callable[[int], Batch], pin: bool) -> None:
        self._make, self._pin = make, pin
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._made: dict[int, Future[Batch]] = {}

    def batch(self, number: int) -> Batch:
        """The `number`-th batch: inputs and the tokens that follow them."""
        wanted = range(number, number + 1 + _AHEAD)
        for old in [known for known in self._made if known not in wanted]:
            self._made.pop(old).cancel()
        for each in wanted:
            if each not in self._made:
                self._made[each] = self._thread.submit(self._pinned, each)
        return self._made[number].result()

    def _pinned(self, number: int) -> Batch:
        x, y = self._make(number)
        return (x.pin_memory(), y.pin_memory()) if self._pin else (x, y)
