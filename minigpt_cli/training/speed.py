"""How fast this machine trains: before the first step, and whether it slows down later."""

from collections import deque
from dataclasses import dataclass
from statistics import median

import torch

from minigpt_cli.device import choose_threads
from minigpt_cli.training.learner import Learner

# A step also updates the weights, and a run also evaluates and saves.
_BESIDES = 1.2
_ENOUGH_SECONDS = 0.5
_LARGE = 5e11
"""FLOPs of a pass from which all threads are used without asking: they rarely wait for each other,
and a pass takes seconds."""
_WINDOW, _FIRST_STEPS = 20, 3
SLOWDOWN = 2.0
"""A run is said to have slowed down when its steps take this many times what they took."""


def training_threads(learner: Learner) -> int:
    """The fastest number of CPU threads, by a few passes of the model.

    Chosen once and recorded with the run, because sums in another order differ in their last
    digits: a run that changed its threads on its own could not be repeated exactly.
    """
    passes = learner.config.train.grad_accum_steps
    if learner.flops_per_token * learner.tokens_per_step / passes > _LARGE:
        return torch.get_num_threads()
    return choose_threads(learner.rehearse, _ENOUGH_SECONDS)


def expected_seconds(learner: Learner, steps: int) -> float:
    """Estimated seconds for this many steps, with the evaluations and saves between them."""
    seconds = min(learner.rehearse() for _ in range(2))
    return seconds * learner.passes_per_step * steps * _BESIDES


@dataclass(frozen=True)
class Slowdown:
    """Steps that take far longer than earlier ones of the same session."""

    seconds_before: float
    seconds_now: float


class StepTimes:
    """Notices once, in a session, that steps take twice what they took."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self._count = 0
        self._usual = float("inf")
        self._is_said = False

    def add(self, seconds: float) -> Slowdown | None:
        """Adds a step; returns a slowdown when it is first seen."""
        self._count += 1
        if self._count <= _FIRST_STEPS or self._is_said:  # the first ones also allocate
            return None
        self._recent.append(seconds)
        if (self._count - _FIRST_STEPS) % _WINDOW:
            return None
        now = median(self._recent)  # one slow step does not count
        usual, self._usual = self._usual, min(self._usual, now)
        if now < SLOWDOWN * usual:
            return None
        self._is_said = True
        return Slowdown(usual, now)
