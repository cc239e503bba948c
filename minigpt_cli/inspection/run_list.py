"""All runs in a folder, a line each: no PyTorch, only logs and headers are read."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from minigpt_cli.errors import MinigptError
from minigpt_cli.inspection.files import inspect_file
from minigpt_cli.inspection.run_history import read_run
from minigpt_cli.runs.folder import METRICS, RUNS, RunFolder, file_errors


@dataclass(frozen=True)
class RunSummary:
    """One row of the list of runs."""

    path: Path
    corpus: tuple[str, ...]
    """The texts it was trained on; empty when its configuration cannot be read."""
    parameters: int | None
    """Of its checkpoint; None before the first evaluation."""
    best_val_loss: float | None
    """Nats per token."""
    last_step: int
    ended_early: bool
    """Whether `train.patience` ended it."""
    max_iters: int | None
    updated: datetime
    """When it last logged something."""

    @property
    def is_finished(self) -> bool:
        """Whether it reached its last step, or ended early."""
        reached = self.max_iters is not None and self.last_step >= self.max_iters
        return reached or self.ended_early


def list_runs(folder: Path = RUNS) -> Iterator[RunSummary]:
    """The runs directly inside a folder that have logged something, the newest first."""
    with file_errors(folder, "read"):
        found = [(path.stat().st_mtime, path.parent) for path in folder.glob(f"*/{METRICS}")]
    for modified, path in sorted(found, reverse=True):
        try:
            run = read_run(path)
        except MinigptError:
            continue  # nothing logged yet
        yield RunSummary(
            path=path,
            corpus=tuple(run.config.data.corpus) if run.config else (),
            parameters=_parameters(RunFolder(path).checkpoint),
            best_val_loss=run.best.val_loss if run.best else None,
            last_step=run.last_step,
            ended_early=run.ended_early,
            max_iters=run.config.train.max_iters if run.config else None,
            updated=datetime.fromtimestamp(modified, UTC),
        )


def _parameters(checkpoint: Path) -> int | None:
    try:
        return inspect_file(checkpoint).parameters
    except MinigptError:
        return None
