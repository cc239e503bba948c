"""What training tells whoever watches it."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class StepReport:
    """One optimizer step."""

    step: int
    """Steps done, this one included."""
    loss: float
    """Mean over the step's batch, nats per token."""
    learning_rate: float
    grad_norm: float
    """Of all gradients together, before clipping."""
    tokens_per_second: float
    """Over the steps since training started or was resumed, evaluations left out."""


@dataclass(frozen=True)
class EvaluationReport:
    """One row of the loss table."""

    step: int
    train_loss: float | None
    """Mean of the last steps' batches, dropout included; None when all were skipped."""
    val_loss: float
    bits_per_byte: float
    is_best: bool
    tokens_per_second: float
    mfu: float
    """Share of the machine's own matrix-product peak, measured at the start, that steps reach."""
    elapsed: float
    """Seconds since the run began, interruptions left out."""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    step: int
    finished: bool
    """False when it was stopped before `max_iters`."""
    best_val_loss: float | None
    best_step: int
    elapsed: float
    step_seconds: float
    tokens_per_second: float
    mfu: float


class Reporter(Protocol):
    """Is told how training goes."""

    def stepped(self, report: StepReport) -> None: ...
    def evaluated(self, report: EvaluationReport) -> None: ...
    def sampled(self, text: str) -> None: ...
    def noted(self, message: str) -> None: ...
