"""The rows of `metrics.jsonl`: one schema for writing, reporting and reading them.

Each line is a JSON object whose `type` names the row. Reading is forgiving: only what makes a row
useful is required, and fields that are unknown here are ignored, so that older and newer versions
read each other's runs.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from typing import Annotated, Any, ClassVar

from pydantic import Field, TypeAdapter, ValidationError

from minigpt_cli.io.strict_json import write_json
from minigpt_cli.language import _

StepNumber = Annotated[int, Field(ge=0, lt=2**31)]
Number = Annotated[float, Field(gt=-1e30, lt=1e30)]
"""Neither NaN nor infinite, nor large enough to become infinite on an axis."""
Seconds = Annotated[float, Field(ge=0, le=1e9)]


@dataclass(frozen=True)
class StepRow:
    """A logged optimizer step."""

    type: ClassVar[str] = "step"

    step: StepNumber
    """Steps done, including this one."""
    loss: Number
    """Mean loss of the step's batch, in nats per token."""
    learning_rate: Number | None = None
    tokens_per_second: Number | None = None
    """Training speed since the run started or was resumed, without evaluations."""
    grad_norm: Number | None = None
    """Global gradient norm before clipping."""


@dataclass(frozen=True)
class EvaluationRow:
    """A measurement on the validation text."""

    type: ClassVar[str] = "evaluation"

    step: StepNumber
    val_loss: Number
    """Nats per token; of the averaged weights, where an average is kept."""
    train_loss: Number | None = None
    """Mean loss of the last steps' batches, with dropout and the weights as they were; None if all
    of them were skipped."""
    bits_per_byte: Number | None = None
    elapsed: Seconds | None = None
    """Seconds since the run began, without interruptions."""
    is_best: bool | None = None
    """Whether no earlier evaluation had a lower validation loss."""
    tokens_per_second: Number | None = None
    epochs: Number | None = None
    """How often the training text has been read."""
    val_tokens: Annotated[int, Field(ge=0)] | None = None
    """How many tokens `val_loss` is measured on."""
    compared_val_loss: Number | None = None
    """At the end of a run, where `val_loss` is of more or all of the validation text: the loss on
    the tokens of the other evaluations."""
    mfu: Number | None = None
    """Model FLOPs utilization: a share of the matrix-product peak measured at the start."""

    @property
    def comparable_loss(self) -> float:
        """The validation loss on the same tokens at every evaluation of a run."""
        return self.val_loss if self.compared_val_loss is None else self.compared_val_loss


@dataclass(frozen=True)
class SampleRow:
    """A text the model generated at an evaluation."""

    type: ClassVar[str] = "sample"

    step: StepNumber
    text: str


@dataclass(frozen=True)
class SpikeRow:
    """A loss far above those before it."""

    type: ClassVar[str] = "spike"

    step: StepNumber
    loss: Number
    z_score: Number | None = None
    """Standard deviations above the mean of the recent losses."""

    def __str__(self) -> str:
        far = (
            ""
            if self.z_score is None
            else _(", {z_score:.1f} standard deviations high").format(z_score=self.z_score)
        )
        return _("a spike at step {step:,}: loss {loss:.4f}{far}").format(
            step=self.step, loss=self.loss, far=far
        )


@dataclass(frozen=True)
class RewindRow:
    """A return to the last saved state, to skip a batch."""

    type: ClassVar[str] = "rewind"

    step: StepNumber
    """The step of that state."""
    skipped: StepNumber | None = None
    """The step whose batch is skipped."""
    reason: str | None = None

    def __str__(self) -> str:
        skipping = (
            ""
            if self.skipped is None
            else _(", skipping the batch of step {skipped:,}").format(skipped=self.skipped)
        )
        why = f": {' '.join(self.reason.split())}" if self.reason else ""
        return _("rewound to step {step:,}{skipping}{why}").format(
            step=self.step, skipping=skipping, why=why
        )


@dataclass(frozen=True)
class MachineRow:
    """The machine and software that the run used from this step on."""

    type: ClassVar[str] = "machine"

    step: StepNumber
    torch: str | None = None
    python: str | None = None
    platform: str | None = None
    processor: str | None = None
    threads: int | None = None
    device: str | None = None
    minigpt: str | None = None
    processes: Annotated[int, Field(gt=0, lt=2**31)] | None = None
    """Number of processes that train together; None in runs of 0.1.0."""
    strategy: str | None = None
    """How several processes share the model: `ddp` or `fsdp`; None for one."""


Row = StepRow | EvaluationRow | SampleRow | SpikeRow | RewindRow | MachineRow
_KINDS: dict[str, type[Row]] = {
    kind.type: kind for kind in (StepRow, EvaluationRow, SampleRow, SpikeRow, RewindRow, MachineRow)
}
_OLD_NAMES = {"utilisation": "mfu"}
"""Fields as minigpt 0.1.0 wrote them, and their names today."""


@cache
def _reader(kind: str) -> TypeAdapter[Any]:
    """Validates a row of this type; made when one is first read, which few commands do."""
    return TypeAdapter(_KINDS[kind])


def to_line(row: Row) -> str:
    """A row as a line of `metrics.jsonl`."""
    return write_json({"type": row.type, **asdict(row)}) + "\n"


def read_rows(data: bytes) -> Iterator[Row]:
    """The rows of a `metrics.jsonl`, in order.

    Skips lines that are half-written, damaged or of an unknown type.
    """
    for line in data.splitlines():
        try:
            values = json.loads(line)
            named = {_OLD_NAMES.get(name, name): value for name, value in values.items()}
            yield _reader(named["type"]).validate_python(named)
        except (ValidationError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue
