"""Numbers going wrong: what is no number, and what is a spike."""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MOST_REWINDS = 3
"""How often a run goes back and leaves out a batch before it gives up."""
SPIKE_Z_SCORE = 6.0
"""A loss so many standard deviations above the recent ones is a spike (as in OLMo 2, 2024)."""
_ENOUGH_LOSSES = 20


class NotFinite(Exception):
    """A loss or a gradient is no number; whoever takes steps answers it, and no user sees it."""

    def __init__(self, what: str, step: int, value: float) -> None:
        super().__init__(f"the {what} is {value} at step {step}")
        self.step = step


def check_finite(step: int, **values: float) -> None:
    """Lets finite numbers pass.

    Args:
        step: they were seen at.
        values: by their names, with `_` for a space.

    Raises:
        NotFinite: the first that is infinite or no number.
    """
    for what, value in values.items():
        if not math.isfinite(value):
            raise NotFinite(what.replace("_", " "), step, value)


@dataclass(frozen=True)
class Spike:
    """A loss far above those before it."""

    step: int
    loss: float
    z_score: float
    """How many of their standard deviations it lies above their mean."""


class LossMonitor:
    """Losses and gradient norms of steps, which may still lie on the device."""

    def __init__(self) -> None:
        self._unread: list[tuple[int, Tensor, Tensor]] = []
        self.recent_norms: deque[float] = deque(maxlen=5)
        """Gradient norms of the last steps that were read."""

    def add(self, step: int, loss: "Tensor", grad_norm: "Tensor") -> None:
        self._unread.append((step, loss, grad_norm))

    def read(self, recent: deque[float]) -> list[Spike]:
        """Fetches what was added since the last time, and says which losses are spikes.

        Args:
            recent: the losses before; those of these steps are appended.

        Raises:
            NotFinite: a loss or a norm is infinite or no number.
        """
        spikes = []
        for step, loss_on_device, norm_on_device in self._unread:
            loss, grad_norm = loss_on_device.item(), norm_on_device.item()
            check_finite(step, loss=loss, gradient_norm=grad_norm)
            z_score = spike(loss, recent)
            if z_score is not None:
                spikes.append(Spike(step, loss, z_score))
            recent.append(loss)
            self.recent_norms.append(grad_norm)
        self.forget()
        return spikes

    def forget(self) -> None:
        """Drops what was not read."""
        self._unread.clear()


def explanation(
    trouble: NotFinite, learning_rate: float, grad_norms: Iterable[float], rewinds: int
) -> str:
    """Why a run ends: what was seen, and what to try."""
    norms = ", ".join(f"{norm:.3g}" for norm in grad_norms) or "none"
    return (
        f"{trouble} (learning rate {learning_rate:.3g}, gradient norms before it: {norms})"
        + (f", after {rewinds} rewind{'s' * (rewinds > 1)}" if rewinds else "")
        + "; try a smaller --learning-rate, --set optimizer.grad_clip=1.0 or a larger "
        "optimizer.warmup_iters; what was saved before stays"
    )


def spike(loss: float, recent: Sequence[float]) -> float | None:
    """The z-score of a loss that lies far above those before it, while there are enough of them."""
    if len(recent) < _ENOUGH_LOSSES:
        return None
    mean = fmean(recent)
    deviation = math.sqrt(fmean((other - mean) ** 2 for other in recent))  # pstdev: 15 times slower
    z_score = (loss - mean) / deviation if deviation else 0.0
    return z_score if z_score > SPIKE_Z_SCORE else None
