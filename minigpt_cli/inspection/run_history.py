"""The history of a run, from the files in its folder: no PyTorch, nothing recomputed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from minigpt_cli.config.loading import load_run_config
from minigpt_cli.config.schema import RunConfig
from minigpt_cli.errors import CheckpointError, ConfigError
from minigpt_cli.runs.folder import RunFolder, is_folder

NOTICEABLE_RISE = 0.01
"""How far the last validation loss must exceed the best, as a share of it, to count as overfitting:
about the difference between runs with different seeds."""


StepNumber = Annotated[int, Field(ge=0, lt=2**31)]
Number = Annotated[float, Field(gt=-1e30, lt=1e30)]
"""Excludes NaN, infinity, and values that become infinite on an axis."""


@dataclass(frozen=True)
class Step:
    """A logged optimizer step."""

    step: StepNumber
    loss: Number
    """Mean over the step's batch, nats per token."""
    learning_rate: Number | None = None
    tokens_per_second: Number | None = None
    grad_norm: Number | None = None
    """Of all gradients together, before any clipping; runs of older versions have none."""


@dataclass(frozen=True)
class Evaluation:
    """A measurement on the validation text."""

    step: StepNumber
    val_loss: Number
    train_loss: Number | None = None
    """Mean of the last steps' batches."""
    bits_per_byte: Number | None = None
    elapsed: Annotated[float, Field(ge=0, le=1e9)] | None = None
    """Seconds since the run began, interruptions left out."""


@dataclass(frozen=True)
class Sample:
    """What the model wrote at an evaluation."""

    step: StepNumber
    text: str


@dataclass(frozen=True)
class Spike:
    """A loss far above the ones before it."""

    step: StepNumber
    loss: Number
    z_score: Number | None = None

    def __str__(self) -> str:
        far = "" if self.z_score is None else f", {self.z_score:.1f} standard deviations high"
        return f"a spike at step {self.step:,}: loss {self.loss:.4f}{far}"


@dataclass(frozen=True)
class Rewind:
    """The run went back to its last good state and left a batch out."""

    step: StepNumber
    """To which it went back."""
    skipped: StepNumber | None = None
    """The step whose batch is left out."""
    reason: str | None = None

    def __str__(self) -> str:
        without = "" if self.skipped is None else f", without the batch of step {self.skipped:,}"
        why = f": {' '.join(self.reason.split())}" if self.reason else ""
        return f"back to step {self.step:,}{without}{why}"


@dataclass(frozen=True)
class Machine:
    """Where the run ran from this step on."""

    step: StepNumber
    torch: str | None = None
    python: str | None = None
    platform: str | None = None
    processor: str | None = None
    threads: int | None = None
    device: str | None = None
    minigpt: str | None = None


@dataclass(frozen=True)
class Overfitting:
    """Validation loss rose while training loss went on falling."""

    since: int
    """The step of the best validation loss."""
    until: int
    """The last evaluation's step."""
    val_rise: float
    train_fall: float
    """Nats per token, between those two steps."""

    def __str__(self) -> str:
        return (
            f"overfitting since step {self.since:,}: by step {self.until:,} validation loss rose "
            f"by {self.val_rise:.4f} while training loss fell by {self.train_fall:.4f}"
        )


@dataclass(frozen=True)
class Run:
    """What a run's folder contains; rows are in the order of their steps."""

    path: Path
    config: RunConfig | None
    config_problem: str | None
    """Why `config` is None."""
    steps: tuple[Step, ...]
    evaluations: tuple[Evaluation, ...]
    samples: tuple[Sample, ...]
    incidents: tuple[Spike | Rewind, ...]
    machines: tuple[Machine, ...]

    @property
    def last_step(self) -> int:
        return max([row.step for row in self.steps] + [row.step for row in self.evaluations])

    @property
    def best(self) -> Evaluation | None:
        """The evaluation with the lowest validation loss; on a tie, the first."""
        return min(self.evaluations, key=lambda row: row.val_loss, default=None)

    @property
    def overfitting(self) -> Overfitting | None:
        best, last = self.best, self.evaluations[-1] if self.evaluations else None
        if best is None or last is None or best.train_loss is None or last.train_loss is None:
            return None
        rise, fall = last.val_loss - best.val_loss, best.train_loss - last.train_loss
        if rise < NOTICEABLE_RISE * best.val_loss or fall <= 0:
            return None
        return Overfitting(best.step, last.step, rise, fall)


def letter(number: int) -> str:
    """The name of a run in a comparison: A for number 0."""
    return ascii_uppercase[number % len(ascii_uppercase)]


def read_run(path: Path) -> Run:
    """Reads what a run has logged so far; it may still be training.

    Lines that are incomplete, damaged or of an unknown type are skipped.

    Raises:
        CheckpointError: the folder has no run or no metrics, or cannot be read.
    """
    folder = RunFolder(path)
    rows = list(_rows(folder))
    steps, evaluations = _latest(rows, Step), _latest(rows, Evaluation)
    if not steps and not evaluations:
        raise CheckpointError(_nothing_logged(folder))
    config, problem = None, None
    try:
        config = load_run_config(str(folder.config))
    except ConfigError as error:
        problem = str(error)
    return Run(
        path=path,
        config=config,
        config_problem=problem,
        steps=steps,
        evaluations=evaluations,
        samples=_latest(rows, Sample),
        incidents=tuple(row for row in rows if isinstance(row, Spike | Rewind)),
        machines=tuple(row for row in rows if isinstance(row, Machine)),
    )


_Row = Step | Evaluation | Sample | Spike | Rewind | Machine
_R = TypeVar("_R", Step, Evaluation, Sample)
_KINDS: dict[object, TypeAdapter[Any]] = {
    kind.__name__.lower(): TypeAdapter(kind)
    for kind in (Step, Evaluation, Sample, Spike, Rewind, Machine)
}


def _rows(folder: RunFolder) -> Iterator[_Row]:
    try:
        data = folder.metrics.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise CheckpointError(f"{folder.metrics}: cannot be read ({error.strerror})") from None
    for line in data.splitlines():
        try:
            row = json.loads(line)
            yield _KINDS[row["type"]].validate_python(row)
        except (ValidationError, ValueError, TypeError, KeyError, RecursionError):
            continue


def _latest(rows: list[_Row], kind: type[_R]) -> tuple[_R, ...]:
    """One row per step, in order: after a rewind, the later one counts."""
    found = {row.step: row for row in rows if isinstance(row, kind)}
    return tuple(found[step] for step in sorted(found))


def _nothing_logged(folder: RunFolder) -> str:
    path = folder.path
    if not is_folder(path):
        return f"{path}: not a run folder; pass one created by minigpt train"
    if not folder.has(folder.config) and not folder.has(folder.metrics):
        return (
            f"{path}: contains no run (neither {folder.config.name} nor {folder.metrics.name}); "
            "pass a folder created by minigpt train"
        )
    checkpoint = f", or see minigpt inspect {folder.checkpoint}"
    return f"{path}: a run without metrics (no steps in {folder.metrics.name}); resume training" + (
        checkpoint if folder.has(folder.checkpoint) else ""
    )
