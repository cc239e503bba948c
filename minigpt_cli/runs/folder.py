"""A run's folder: what lies where, how a new one is named, which is the newest."""

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from minigpt_cli.errors import CheckpointError
from minigpt_cli.io.atomic import is_temporary, replacing, sweep

RUNS = Path("runs")
CHECKPOINT = "checkpoint.safetensors"
STATE = "state.safetensors"
LOCK = "run.lock"
METRICS = "metrics.jsonl"
_locks: dict[Path, FileLock] = {}
"""Those that this process holds, by the folder of their run."""


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """The model at its best validation loss."""
        return self.path / CHECKPOINT

    @property
    def state(self) -> Path:
        """What `--resume` needs: the latest weights, the optimizer's state, the step."""
        return self.path / STATE

    def has(self, file: Path) -> bool:
        """Whether one of the run's files is there.

        Raises:
            CheckpointError: the folder cannot be looked into.
        """
        with _explained(file, "read"):
            return file.exists()

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.path / METRICS

    @property
    def report(self) -> Path:
        """All about the run, for a browser."""
        return self.path / "report.html"

    def command(self, name: str) -> str:
        """A command about this run, to be typed into a shell."""
        return f"minigpt {name} {shlex.quote(str(self.path))}"

    @contextmanager
    def locked(self, new: bool = False) -> Iterator[None]:
        """Inside this context no other process trains this run; a crash leaves no lock behind.

        Args:
            new: the run is to begin here, and not to go on.

        Raises:
            CheckpointError: another process does, or the folder cannot be written to.
        """
        if not new and not self.has(self.config):  # nothing to protect, and no place for a file
            yield
            return
        lock = FileLock(self.path / LOCK)
        self._acquire(lock)
        _locks[self.path] = lock
        try:
            if new:
                self.refuse_another_run()
            with _explained(self.path, "written"):
                sweep(self.path, CHECKPOINT, STATE, METRICS, self.config.name)
                if new:
                    self.metrics.unlink(missing_ok=True)  # of a start that was killed
            yield
        finally:
            del _locks[self.path]
            lock.release()

    def _acquire(self, lock: FileLock) -> None:
        with _explained(self.path, "written"):
            try:
                lock.acquire(blocking=False)
            except Timeout:
                raise CheckpointError(
                    f"{self.path}: another process is training this run; wait until it ends, or "
                    "choose another --out"
                ) from None

    def refuse_another_run(self) -> None:
        """Lets a new run begin here.

        Raises:
            CheckpointError: there is one already.
        """
        if self.has(self.state):
            raise CheckpointError(
                f"--out {self.path}: exists already and is not overwritten; choose another, or go "
                f"on with it: {self.command('train --resume')}"
            )

    def write_config(self, toml: str) -> None:
        """Replaces the configuration.

        Raises:
            CheckpointError: the disk refuses; what lay there before is unharmed.
        """
        _replace(self.config, toml)

    def write_report(self, html: str) -> None:
        """Replaces the report.

        Raises:
            CheckpointError: the disk refuses; what lay there before is unharmed.
        """
        _replace(self.report, html)

    def make_again(self, toml: str) -> None:
        """Brings back a folder or a configuration that was deleted since, locked as it was.

        Raises:
            CheckpointError: the disk refuses, or another process has begun a run there.
        """
        with _explained(self.path, "written"):
            self.path.mkdir(parents=True, exist_ok=True)
        if self.path in _locks:  # a lock goes with its file
            _locks[self.path].release()
            self._acquire(_locks[self.path])
        self.write_config(toml)

    def append_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Adds lines, all or none.

        Raises:
            CheckpointError: the disk refuses.
        """
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        with _explained(self.metrics, "written"), self.metrics.open("ab", buffering=0) as file:
            length = file.seek(0, os.SEEK_END)
            try:
                while data:
                    data = data[file.write(data) :]
            except OSError:
                with suppress(OSError):
                    file.truncate(length)
                raise

    def sync_metrics(self) -> None:
        """Returns when the metrics are safely on the disk.

        Raises:
            CheckpointError: the disk refuses.
        """
        with _explained(self.metrics, "written"), self.metrics.open("ab") as file:
            os.fsync(file.fileno())

    def cut_metrics(self, step: int) -> None:
        """Drops what was logged after `step`, and a line that a crash left half-written.

        Raises:
            CheckpointError: the disk refuses; what lay there before is unharmed.
        """
        kept = []
        with _explained(self.metrics, "read"):
            raw = self.metrics.read_bytes() if self.metrics.exists() else b""
        for line in raw.splitlines(keepends=True):
            try:
                if json.loads(line)["step"] <= step and line.endswith(b"\n"):
                    kept.append(line.decode())
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
        _replace(self.metrics, "".join(kept))


@contextmanager
def _explained(path: Path, done: Literal["read", "written"]) -> Iterator[None]:
    """What the disk refuses becomes a message."""
    try:
        yield
    except OSError as error:
        hint = "; free some space or choose another --out" if done == "written" else ""
        raise CheckpointError(f"{path}: cannot be {done} ({error.strerror}){hint}") from None


def _replace(path: Path, text: str) -> None:
    """Writes a file so that it is there whole or not at all."""
    with _explained(path, "written"), replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def new_run(name: str, out: Path | None) -> RunFolder:
    """Makes a folder for a run: `out`, or `runs/<name>`, numbered when that exists.

    Raises:
        CheckpointError: `out` holds a run already, or cannot be made.
    """
    path = out if out is not None else RUNS / name
    try:
        if out is not None:
            if path.exists() and not (path.is_dir() and _holds_no_run(path)):
                RunFolder(path).refuse_another_run()
                raise CheckpointError(
                    f"--out {path}: exists already and is not overwritten; choose another"
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
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be made ({error.strerror}); choose another folder with --out"
        ) from None


def _holds_no_run(path: Path) -> bool:
    """Whether a folder is empty, or has only what is left of a run killed before its first save."""
    run, entries = RunFolder(path), list(path.iterdir())
    ours = (CHECKPOINT, STATE, METRICS, run.config.name)
    left = all(
        entry in (run.config, run.metrics, path / LOCK) or is_temporary(entry, *ours)
        for entry in entries
    )
    trained = run.metrics.exists() and b'"type": "step"' in run.metrics.read_bytes()
    return not entries or (left and path / LOCK in entries and not trained)


def is_folder(path: Path) -> bool:
    """Whether a path a user gave is a folder.

    Raises:
        CheckpointError: it cannot be looked at.
    """
    with _explained(path, "read"):
        return path.is_dir()


def find_checkpoint(path: Path | None) -> tuple[Path, bool]:
    """The checkpoint a user means, and whether it was chosen for them.

    A run's folder stands for its checkpoint. No path at all, or the bare name
    `checkpoint.safetensors` where no such file lies, stands for the newest run's.

    Raises:
        CheckpointError: there is no run to choose, or the path cannot be looked at.
    """
    with _explained(path or RUNS, "read"):
        if path is None or (path == Path(CHECKPOINT) and not path.exists()):
            return newest(CHECKPOINT).checkpoint, True
        return (RunFolder(path).checkpoint if path.is_dir() else path), False


def newest(file: str) -> RunFolder:
    """The run under `runs/` whose `file` was written last.

    Raises:
        CheckpointError: no run has one.
    """
    found = sorted(RUNS.glob(f"*/{file}"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise CheckpointError(
            f"no {file} under {RUNS.resolve()}; train one with: minigpt train --preset small"
        )
    return RunFolder(found[-1].parent)
