"""A run folder in use: created, locked and cleaned up for the one process that trains."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from minigpt_cli.errors import CheckpointError, OutOfMemoryError, reraise_as
from minigpt_cli.io.atomic import is_temporary, sweep
from minigpt_cli.io.locking import take
from minigpt_cli.language import _
from minigpt_cli.runs.folder import CHECKPOINT, CONFIG, METRICS, RUNS, STATE, RunFolder, file_errors
from minigpt_cli.runs.metrics import StepRow

LOCK = "run.lock"
_FILES = (CHECKPOINT, STATE, METRICS, CONFIG)


class Run:
    """A run folder that this process writes into.

    `new` and `existing` keep other processes from training the same run. The operating system
    holds the lock, so a crash releases it.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._lock = FileLock(folder.path / LOCK)

    @classmethod
    @contextmanager
    def new(cls, name: str, out: Path | None = None) -> Iterator["Run"]:
        """Creates and locks a folder: `out`, or `runs/<name>`, numbered if that exists.

        Raises:
            CheckpointError: the folder holds a run already, or cannot be created, or another
                process is training in it.
        """
        run = cls(create_folder(name, out))
        with run._locked():
            _check_no_run(run.folder)  # another process may have been faster
            with file_errors(run.folder.path, "written"):
                run.folder.metrics.unlink(missing_ok=True)  # of a start that was killed
            try:
                yield run
            except OutOfMemoryError:
                run._remove_unused()
                raise

    def _remove_unused(self) -> None:
        """Removes the folder of a run that never took a step, so that its name is free."""
        folder = self.folder
        if any(isinstance(row, StepRow) for row in folder.read_metrics()):
            return
        for path in (folder.state, folder.metrics, folder.config, folder.path / LOCK):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # something else is in it
            folder.path.rmdir()

    @classmethod
    @contextmanager
    def existing(cls, folder: RunFolder) -> Iterator["Run"]:
        """Locks the folder of a saved run, before anything in it is read.

        Raises:
            CheckpointError: nothing is saved, another process is training the run, or the folder
                cannot be written.
        """
        if not folder.has(folder.state):  # and no place for a lock
            raise CheckpointError(
                _(
                    "{path}: nothing to resume, there is no {name}; start a new run with "
                    "minigpt train"
                ).format(path=folder.path, name=folder.state.name)
            )
        run = cls(folder)
        with run._locked():
            yield run

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._acquire()
        try:
            with file_errors(self.folder.path, "written"):
                sweep(self.folder.path, *_FILES)
                sweep(self.folder.path, self.folder.report.name, older_than=60.0)
            yield
        finally:
            self._lock.release()

    def _acquire(self) -> None:
        with file_errors(self.folder.path, "written"):
            try:
                take(self._lock, blocking=False)
            except Timeout:
                raise CheckpointError(
                    _(
                        "{path}: another process is training this run; wait until it ends, "
                        "or choose another run folder"
                    ).format(path=self.folder.path),
                    settings=("out",),
                ) from None

    def restore_folder(self, toml: str) -> None:
        """Recreates a deleted folder or configuration, and the lock if this run had one.

        Raises:
            CheckpointError: the write failed, or another process has started a run there.
        """
        with file_errors(self.folder.path, "written"):
            self.folder.path.mkdir(parents=True, exist_ok=True)
        if self._lock.is_locked:  # the lock was deleted with its file
            self._lock.release()
            self._acquire()
        self.folder.write_config(toml)


def create_folder(name: str, out: Path | None) -> RunFolder:
    """Creates `out`, or `runs/<name>`, numbered if that exists.

    Raises:
        CheckpointError: `out` holds a run or other files, or cannot be created.
    """
    path = out if out is not None else RUNS / name
    hint = _("choose another run folder")
    with reraise_as(CheckpointError, path, "created", hint=hint, settings=("out",)):
        if out is not None:
            if path.exists() and not (path.is_dir() and _is_free(RunFolder(path))):
                _check_no_run(RunFolder(path))
                raise CheckpointError(
                    _(
                        "{path}: already exists and is not overwritten; choose another run folder"
                    ).format(path=path),
                    settings=("out",),
                )
            path.mkdir(parents=True, exist_ok=True)
            return RunFolder(path)
        RUNS.mkdir(exist_ok=True)
        number = 1
        while True:
            try:
                path.mkdir()
                return RunFolder(path)
            except FileExistsError:
                number += 1
                path = RUNS / f"{name}-{number}"


def _check_no_run(folder: RunFolder) -> None:
    """Raises `CheckpointError` if the folder holds a run that can be resumed."""
    if folder.has(folder.state):
        raise CheckpointError(
            _(
                "{path}: already exists and is not overwritten; resume it with {command}, or "
                "choose another run folder"
            ).format(path=folder.path, command=folder.command("train --resume")),
            settings=("out",),
        )


def _is_free(folder: RunFolder) -> bool:
    """Whether a folder is empty, or holds only what a run killed before its first save left."""
    entries = list(folder.path.iterdir())
    lock = folder.path / LOCK
    if not entries:
        return True
    leftovers = all(
        entry in (folder.config, folder.metrics, lock) or is_temporary(entry, *_FILES)
        for entry in entries
    )
    if not leftovers or lock not in entries:
        return False
    return not any(isinstance(row, StepRow) for row in folder.read_metrics())
