"""How fast this machine trains: before the first step, and whether it slows down later."""

from collections import deque
from dataclasses import dataclass
from statistics import median

import torch

from minigpt_cli.training.learner import Learner

# A step also updates the weights, and a run also evaluates and saves.
_BESIDES = 1.2
# Where the passes take this long, no other number is tried: large models profit from all threads.
_LONG_SECONDS = 2.0
# Fewer threads are chosen for a clear gain only.
_GAIN = 0.95
_WINDOW, _FIRST_STEPS = 20, 3
SLOWDOWN = 2.0
"""A run is said to have slowed down when its steps take this many times what they took."""


def choose_threads(learner: Learner) -> int:
    """The fastest number of CPU threads, by a few passes of the model.

    Threads wait for each other by spinning: beside another busy program, all of them together can
    be slower than one. Chosen once and recorded with the run, because sums in another order differ
    in their last digits: a run that changed its threads on its own could not be repeated exactly.
    """
    most = torch.get_num_threads()
    if most == 1:
        return most
    candidates = dict.fromkeys([most, most // 2, 1] if most > 3 else [most, 1])
    best, best_seconds = most, float("inf")
    for threads in candidates:
        torch.set_num_threads(threads)
        learner.rehearse()  # the first one also allocates
        # The median: among busy neighbors, a single quick pass says nothing.
        seconds = median(learner.rehearse() for _ in range(5))
        if seconds < _GAIN * best_seconds:
            best, best_seconds = threads, seconds
        if 5 * seconds > _LONG_SECONDS:
            break
    torch.set_num_threads(best)
    return best


def expected_seconds(learner: Learner, steps: int) -> float:
    """Estimated seconds for this many steps, with the evaluations and saves between them."""
    seconds = min(learner.rehearse() for _ in range(2))
    return seconds * learner.config.train.grad_accum_steps * steps * _BESIDES


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
