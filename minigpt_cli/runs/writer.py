"""Writes what a run leaves behind, and keeps the run going when the disk refuses."""

from collections.abc import Callable
from functools import partial
from typing import Any

from minigpt_cli.errors import CheckpointError
from minigpt_cli.runs.checkpoint import PendingFile
from minigpt_cli.runs.folder import RunFolder


class RunWriter:
    """The one who writes into a run's folder while it trains.

    What the disk refuses is kept in memory, said once, and tried again at the next save: a run
    that has gone on for hours does not end because a disk is full for a minute.

    Args:
        folder: where to; None keeps nothing.
        config: the run's configuration as TOML, for a folder that has to be made again.
        note: told when saving fails, and when it works again.
    """

    def __init__(self, folder: RunFolder | None, config: str, note: Callable[[str], None]) -> None:
        self._folder, self._config, self._note = folder, config, note
        self._rows: list[dict[str, Any]] = []
        self._checkpoint: PendingFile | None = None
        self._trouble: CheckpointError | None = None
        self.saved_step: int | None = None
        """The last step whose state is on the disk, as far as this process knows."""
        self.lost_checkpoint = False
        """Whether the best model was lost with its folder, and none has been saved since."""

    def row(self, row: dict[str, Any]) -> None:
        """Adds a line to the metrics, at once or as soon as the disk takes it."""
        if self._folder is None:
            return
        self._rows.append(row)
        if self._trouble is None:
            self._attempt(partial(self._write_rows, self._folder))

    def save(self, step: int, state: PendingFile, checkpoint: PendingFile | None = None) -> None:
        """Writes the metrics so far, then the checkpoint, then the state that stands for all.

        Args:
            step: of the state.
            state: what resuming needs.
            checkpoint: the model, when it is to be kept too.
        """
        if self._folder is None:
            return
        self._checkpoint = checkpoint or self._checkpoint
        if self._attempt(partial(self._write, self._folder, state)):
            self.saved_step = step
        elif checkpoint is not None:
            self._checkpoint = checkpoint.copied()  # the model itself goes on changing

    def forget_after(self, step: int) -> None:
        """Drops what still waits to be written and comes from later steps, which are undone."""
        self._rows = [row for row in self._rows if row["step"] <= step]
        self._checkpoint = None

    def finish(self) -> None:
        """Says whether all is on the disk at the end of the run.

        Raises:
            CheckpointError: it is not.
        """
        if self._trouble is not None:
            last = "nothing" if self.saved_step is None else f"step {self.saved_step:,}"
            raise CheckpointError(f"{self._trouble}; the last that is saved: {last}")

    def _attempt(self, write: Callable[[], None]) -> bool:
        before = self._trouble
        try:
            write()
        except CheckpointError as error:
            self._trouble = error
            if before is None:
                self._note(f"UNSAVED: {error}. Training goes on and tries again.")
            return False
        self._trouble = None
        if before is not None:
            self._note("Saving works again.")
        return True

    def _write_rows(self, folder: RunFolder) -> None:
        folder.append_metrics(self._rows)
        self._rows.clear()

    def _write(self, folder: RunFolder, state: PendingFile) -> None:
        if not folder.has(folder.config):
            lost_all = not folder.has(folder.metrics)
            folder.make_again(self._config)
            self.lost_checkpoint = not folder.has(folder.checkpoint)
            gone = f"{folder.path} was gone and is made again; its earlier metrics are lost"
            self._note(gone if lost_all else f"{folder.config} was gone and is written again")
        self._write_rows(folder)
        folder.sync_metrics()
        if self._checkpoint is not None:
            self._checkpoint.write()
            self._checkpoint, self.lost_checkpoint = None, False
        state.write()
