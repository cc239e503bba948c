"""The history of a run, read from its folder without PyTorch."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import ascii_uppercase
from typing import TypeVar

from minigpt_cli.config.loading import load_run_config
from minigpt_cli.config.schema import RunConfig
from minigpt_cli.errors import CheckpointError, ConfigError, did_you_mean
from minigpt_cli.language import _
from minigpt_cli.runs.checkpoint_header import saved_step
from minigpt_cli.runs.folder import RunFolder, is_folder
from minigpt_cli.runs.metrics import (
    EvaluationRow,
    MachineRow,
    RewindRow,
    Row,
    SampleRow,
    SpikeRow,
    StepRow,
)

NOTICEABLE_RISE = 0.01
"""A later validation loss must exceed the best one by this share to count as overfitting: about as
much as runs with different seeds differ."""


FEWEST_EPOCHS = 2.0
"""Passes over the training text before a rise of the validation loss is called overfitting."""


@dataclass(frozen=True)
class Overfitting:
    """Validation loss rose while training loss kept falling."""

    since: int
    """The step of the best validation loss."""
    until: int
    """The last evaluation's step."""
    val_rise: float
    train_fall: float
    """Nats per token, between those two steps."""

    def __str__(self) -> str:
        return _(
            "overfitting since step {since:,}: by step {until:,} validation loss rose by "
            "{val_rise:.4f} while training loss fell by {train_fall:.4f}"
        ).format(
            since=self.since, until=self.until, val_rise=self.val_rise, train_fall=self.train_fall
        )


class UnlikeText(Overfitting):
    """The same in a run that is too short for overfitting: the two texts are not alike."""

    def __str__(self) -> str:
        return _(
            "unlike texts: from step {since:,} to {until:,} validation loss rose by "
            "{val_rise:.4f} while training loss fell by {train_fall:.4f}, too early for "
            "overfitting: the validation text (by default the end) is unlike the rest; "
            "mix the order of the texts, or validate on one that is like them "
            "(data.val_corpus)"
        ).format(
            since=self.since, until=self.until, val_rise=self.val_rise, train_fall=self.train_fall
        )


@dataclass(frozen=True)
class RunHistory:
    """The logged history of a run; rows are in the order of their steps."""

    path: Path
    config: RunConfig | None
    config_problem: str | None
    """Why `config` is None."""
    steps: tuple[StepRow, ...]
    evaluations: tuple[EvaluationRow, ...]
    samples: tuple[SampleRow, ...]
    incidents: tuple[SpikeRow | RewindRow, ...]
    machines: tuple[MachineRow, ...]
    saved_step: int | None = None
    """The step from which it would be resumed; None where no state is saved."""

    @property
    def last_step(self) -> int:
        """The step of its saved state, which lies between two rows of the metrics, or behind."""
        if self.saved_step is not None:
            return self.saved_step
        return max([row.step for row in self.steps] + [row.step for row in self.evaluations])

    @cached_property
    def best(self) -> EvaluationRow | None:
        """The evaluation with the lowest validation loss; the first, where several share it."""
        return min(self.evaluations, key=lambda row: row.comparable_loss, default=None)

    @property
    def ended_early(self) -> bool:
        """Whether `train.patience` ended it, after evaluations without improvement."""
        patience = self.config.train.patience if self.config else 0
        if not patience or self.best is None:
            return False
        return sum(row.step > self.best.step for row in self.evaluations) >= patience

    @property
    def overfitting(self) -> Overfitting | None:
        """A rise of the validation loss that can be overfitting."""
        return self.rise if type(self.rise) is Overfitting else None

    @property
    def rise(self) -> Overfitting | None:
        """A noticeable rise of the validation loss since its best, while training went on well."""
        best, last = self.best, self.evaluations[-1] if self.evaluations else None
        if best is None or last is None or best.train_loss is None or last.train_loss is None:
            return None
        rise = last.comparable_loss - best.comparable_loss
        fall = best.train_loss - last.train_loss
        if rise < NOTICEABLE_RISE * best.comparable_loss or fall <= 0:
            return None
        # A text that was hardly read twice cannot have been learned by heart.
        is_early = last.epochs is not None and last.epochs < FEWEST_EPOCHS
        kind = UnlikeText if is_early else Overfitting
        return kind(best.step, last.step, rise, fall)


def letter(number: int) -> str:
    """A run's name when compared with others: A for number 0."""
    return ascii_uppercase[number % len(ascii_uppercase)]


def read_run(path: Path) -> RunHistory:
    """Reads what a run has logged so far; it may still be training.

    Raises:
        CheckpointError: the folder holds no run, or a run without metrics, or cannot be read.
    """
    folder = RunFolder(path)
    rows = folder.read_metrics()
    steps, evaluations = _latest(rows, StepRow), _latest(rows, EvaluationRow)
    if not steps and not evaluations:
        raise CheckpointError(_nothing_logged(folder))
    config, problem = None, None
    try:
        config = load_run_config(str(folder.config))
    except ConfigError as error:
        problem = str(error)
    return RunHistory(
        path=path,
        config=config,
        config_problem=problem,
        steps=steps,
        evaluations=evaluations,
        samples=_latest(rows, SampleRow),
        incidents=tuple(row for row in rows if isinstance(row, SpikeRow | RewindRow)),
        machines=tuple(row for row in rows if isinstance(row, MachineRow)),
        saved_step=saved_step(folder.state),
    )


_R = TypeVar("_R", StepRow, EvaluationRow, SampleRow)


def _latest(rows: list[Row], kind: type[_R]) -> tuple[_R, ...]:
    """One row per step, in order: after a rewind, the later row counts."""
    found = {row.step: row for row in rows if isinstance(row, kind)}
    return tuple(found[step] for step in sorted(found))


def _nothing_logged(folder: RunFolder) -> str:
    path = folder.path
    if not is_folder(path):
        return _("{path}: not a run folder; pass one created by minigpt train").format(
            path=path
        ) + did_you_mean(path)
    if not folder.has(folder.config) and not folder.has(folder.metrics):
        return _(
            "{path}: contains no run (neither {config} nor {metrics}); pass a folder created "
            "by minigpt train"
        ).format(path=path, config=folder.config.name, metrics=folder.metrics.name)
    checkpoint = _(", or see minigpt inspect {checkpoint}").format(checkpoint=folder.checkpoint)
    return _("{path}: a run without metrics (no steps in {name}); resume training").format(
        path=path, name=folder.metrics.name
    ) + (checkpoint if folder.has(folder.checkpoint) else "")
