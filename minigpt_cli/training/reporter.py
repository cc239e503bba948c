"""What training reports, and to whom."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minigpt_cli.runs.metrics import EvaluationRow, StepRow

if TYPE_CHECKING:
    from minigpt_cli.training.speed import Slowdown


class Reporter:
    """Receives training events. A subclass overrides the methods it needs."""

    def stepped(self, row: StepRow) -> None:
        """An optimizer step was taken (on an accelerator: the last of several)."""

    def evaluating(self, stage: str, done: int, total: int) -> None:
        """So many tokens of an evaluation are done; called at least once a second or pass."""

    def evaluated(self, row: EvaluationRow) -> None:
        """The model was evaluated and, if it is the best so far, saved."""

    def sampled(self, text: str) -> None:
        """The model generated a text after an evaluation."""

    def slowed(self, slowdown: "Slowdown") -> None:
        """Steps take far longer than they did; said once in a session."""

    def noted(self, message: str) -> None:
        """Something unusual happened, such as a full disk or a skipped batch."""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    run: Path
    """The run folder."""
    step: int
    finished: bool
    """False if the run was interrupted before its end."""
    stopped_early: bool
    """Whether it ended because of `train.patience`."""
    best_val_loss: float | None
    best_step: int
    elapsed: float
    """Seconds since the run began, without interruptions."""
    step_seconds: float
    """Seconds of optimizer steps, without evaluations and saves."""
    tokens_per_second: float
    mfu: float
    """Model FLOPs utilization: a share of the matrix-product peak measured at the start."""
