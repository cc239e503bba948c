"""The model that a view is of."""

from dataclasses import dataclass
from pathlib import Path

from minigpt_cli.runs.checkpoint import Checkpoint, load_checkpoint
from minigpt_cli.runs.folder import CHECKPOINT


@dataclass(frozen=True)
class Loaded:
    """A checkpoint and where it lies."""

    path: Path
    checkpoint: Checkpoint

    @property
    def name(self) -> str:
        """What to call it in a title: its run's folder, and its step."""
        is_run = self.path.name == CHECKPOINT and self.path.parent.name
        path = self.path.parent if is_run else self.path
        return f"{path}, step {self.checkpoint.metadata.step:,}"


def load(path: Path) -> Loaded:
    """Reads a checkpoint.

    Raises:
        CheckpointError: it is missing, damaged, or not one of ours.
    """
    return Loaded(path, load_checkpoint(path))
