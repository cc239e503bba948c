"""Writes a run's files during training, and keeps training alive while the disk refuses."""

from collections.abc import Callable
from typing import Protocol

from minigpt_cli.errors import CheckpointError
from minigpt_cli.language import _
from minigpt_cli.runs.checkpoint import PendingFile
from minigpt_cli.runs.folder import RunFolder
from minigpt_cli.runs.metrics import Row
from minigpt_cli.runs.run import Run


class Writer(Protocol):
    """Writes a run's files during training, or leaves that to another process."""

    saved_step: int | None
    """The last step whose state is on the disk, as far as this process knows."""
    lost_checkpoint: bool
    """Whether the best model was deleted with its folder, and none has been saved since."""

    @property
    def folder(self) -> RunFolder: ...
    def begin(self, config: str, note: Callable[[str], None]) -> None: ...
    def row(self, row: Row) -> None: ...
    def save(
        self, step: int, state: PendingFile, checkpoint: PendingFile | None = None
    ) -> None: ...
    def forget_after(self, step: int) -> None: ...
    def finish(self) -> None: ...


class NoWriter:
    """The writer of the processes that leave a run's folder to rank 0."""

    lost_checkpoint = False

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.saved_step: int | None = 0

    def begin(self, config: str, note: Callable[[str], None]) -> None:
        """Writes nothing, like the other methods."""

    def row(self, row: Row) -> None: ...

    def save(
        self, step: int, state: PendingFile, checkpoint: PendingFile | None = None
    ) -> None: ...

    def forget_after(self, step: int) -> None: ...

    def finish(self) -> None: ...


class RunWriter:
    """Writes a run's files during training.

    What cannot be written is kept in memory, reported once, and tried again at the next save: a
    run of many hours must not end because a disk is full for a minute.
    """

    def __init__(self, run: Run) -> None:
        self._run, self.folder = run, run.folder
        self._config = ""
        self._note: Callable[[str], None] = lambda _: None
        self._rows: list[Row] = []
        self._checkpoint: PendingFile | None = None
        self._problem: CheckpointError | None = None
        self.saved_step: int | None = None
        self.lost_checkpoint = False

    def begin(self, config: str, note: Callable[[str], None]) -> None:
        """Writes the run's configuration, and again later if the folder is deleted.

        `note` is called when saving fails, and when it works again.

        Raises:
            CheckpointError: the write failed.
        """
        self._config, self._note = config, note
        self.folder.write_config(config)

    def row(self, row: Row) -> None:
        """Appends a row to the metrics, now or as soon as the disk accepts it."""
        self._rows.append(row)
        if self._problem is None:
            self._attempt(self._write_rows)

    def save(self, step: int, state: PendingFile, checkpoint: PendingFile | None = None) -> None:
        """Writes the metrics, then the model if it is the best so far, and last the state.

        What cannot be written is tried again later, so that no tensor of `checkpoint` may change.
        """
        self._checkpoint = checkpoint or self._checkpoint
        if self._attempt(lambda: self._write(state)):
            self.saved_step = step

    def forget_after(self, step: int) -> None:
        """Drops pending writes from after `step`, which a rewind has undone."""
        self._rows = [row for row in self._rows if row.step <= step]
        self._checkpoint = None

    def finish(self) -> None:
        """Checks that everything is on the disk at the end of a run.

        Raises:
            CheckpointError: something is not.
        """
        if self._problem is not None:
            last = (
                _("nothing")
                if self.saved_step is None
                else _("step {saved_step:,}").format(saved_step=self.saved_step)
            )
            raise CheckpointError(
                _("{problem}; last saved: {last}").format(problem=self._problem, last=last),
                self._problem.settings,
            )

    def _attempt(self, write: Callable[[], None]) -> bool:
        before = self._problem
        try:
            write()
        except CheckpointError as error:
            self._problem = error
            if before is None:
                self._note(
                    _("UNSAVED: {error}. Training continues and will try again.").format(
                        error=error
                    )
                )
            return False
        self._problem = None
        if before is not None:
            self._note(_("Saving works again."))
        return True

    def _write_rows(self) -> None:
        self.folder.append_metrics(self._rows)
        self._rows.clear()

    def _write(self, state: PendingFile) -> None:
        folder = self.folder
        if not folder.has(folder.config):
            lost_metrics = not folder.has(folder.metrics)
            self._run.restore_folder(self._config)
            self.lost_checkpoint = not folder.has(folder.checkpoint)
            gone = _("{path} was deleted and is recreated; its earlier metrics are lost").format(
                path=folder.path
            )
            self._note(
                gone
                if lost_metrics
                else _("{config} was deleted and is rewritten").format(config=folder.config)
            )
        self._write_rows()
        folder.sync_metrics()
        if self._checkpoint is not None:
            self._checkpoint.write()
            self._checkpoint, self.lost_checkpoint = None, False
        state.write()
