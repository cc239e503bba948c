"""Non-finite values and loss spikes."""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from minigpt_cli.language import _, mark, ngettext
from minigpt_cli.runs.metrics import SpikeRow

if TYPE_CHECKING:
    from torch import Tensor

MAX_REWINDS = 3
"""How often a run returns to its last saved state to skip a batch before it gives up."""
SPIKE_Z_SCORE = 6.0
"""A loss this many standard deviations above the recent ones is a spike (as in OLMo 2, 2024)."""
_ENOUGH_LOSSES = 20


_VALUES = {
    "loss": mark("loss"),
    "gradient_norm": mark("gradient norm"),
    "norm_of_the_weights": mark("norm of the weights"),
    "validation_loss": mark("validation loss"),
}


class NotFinite(Exception):
    """A loss, gradient or weight is NaN or infinite. Handled by the trainer; never shown."""

    def __init__(self, what: str, step: int, value: float) -> None:
        problem = _("the {what} is {value} at step {step}")
        super().__init__(problem.format(what=_(what), value=value, step=step))
        self.step = step


def check_finite(step: int, **values: float) -> None:
    """Checks the values of a step, given by their names in `_VALUES`.

    Raises:
        NotFinite: names the first that is NaN or infinite.
    """
    for what, value in values.items():
        if not math.isfinite(value):
            raise NotFinite(_VALUES[what], step, value)


class LossMonitor:
    """Losses and gradient norms of steps, which may still be on the device."""

    def __init__(self) -> None:
        self._unread: list[tuple[int, Tensor, Tensor]] = []
        self.recent_norms: deque[float] = deque(maxlen=5)
        """Gradient norms of the last steps that were read."""

    def add(self, step: int, loss: "Tensor", grad_norm: "Tensor") -> None:
        self._unread.append((step, loss, grad_norm))

    def read(self, recent: deque[float]) -> list[SpikeRow]:
        """Reads the values added since the last call, and returns the losses that are spikes.

        Args:
            recent: the losses before; those of these steps are appended.

        Raises:
            NotFinite: a loss or a norm is NaN or infinite.
        """
        spikes = []
        for step, loss_on_device, norm_on_device in self._unread:
            loss, grad_norm = loss_on_device.item(), norm_on_device.item()
            check_finite(step, loss=loss, gradient_norm=grad_norm)
            z_score = spike_z_score(loss, recent)
            if z_score is not None:
                spikes.append(SpikeRow(step, loss, z_score))
            recent.append(loss)
            self.recent_norms.append(grad_norm)
        self.forget()
        return spikes

    def forget(self) -> None:
        """Drops the values that were not read."""
        self._unread.clear()


def divergence_message(
    problem: NotFinite, learning_rate: float, grad_norms: Iterable[float], rewinds: int, look: str
) -> str:
    """Why a run ends, and what to try; `look` is a command that shows the step's batch."""
    norms = _(", ").join(f"{norm:.3g}" for norm in grad_norms) or _("none")
    found = _("{problem} (learning rate {learning_rate:.3g}, gradient norms before it: {norms})")
    after = ngettext(", after {number} rewind", ", after {number} rewinds", rewinds)
    fix = _(
        "; earlier checkpoints are kept; see its batch with: {command}; try a smaller "
        "optimizer.learning_rate, a larger optimizer.warmup_iters, or optimizer.grad_clip = 1.0"
    )
    return (
        found.format(problem=problem, learning_rate=learning_rate, norms=norms)
        + (after.format(number=rewinds) if rewinds else "")
        + fix.format(command=look)
    )


def spike_z_score(loss: float, recent: Sequence[float]) -> float | None:
    """The z-score of a loss that is a spike compared with enough recent ones, or None."""
    if len(recent) < _ENOUGH_LOSSES:
        return None
    mean = fmean(recent)
    deviation = math.sqrt(fmean((other - mean) ** 2 for other in recent))  # pstdev: 15 times slower
    z_score = (loss - mean) / deviation if deviation else 0.0
    return z_score if z_score > SPIKE_Z_SCORE else None
