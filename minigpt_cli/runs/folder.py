"""The files of a run folder, and how to find the newest run."""

import os
import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from io import FileIO
from json import loads
from pathlib import Path
from typing import Literal

from minigpt_cli.errors import CheckpointError, reraise_as
from minigpt_cli.io.atomic import replacing, sweep
from minigpt_cli.io.regular import read_bounded
from minigpt_cli.language import _
from minigpt_cli.runs.metrics import Row, read_rows, to_line

RUNS = Path("runs")
CHECKPOINT = "checkpoint.safetensors"
STATE = "state.safetensors"
METRICS = "metrics.jsonl"
CONFIG = "config.toml"
_LONGEST_WRITE = 60.0
"""Seconds after which a half-written report is one that a killed process left."""
_MOST_METRICS = 1 << 30
"""Bytes; a run of a million steps logs a tenth of it."""


@dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    Methods raise `CheckpointError` when the operating system refuses; no file is left half-written.
    """

    path: Path

    @property
    def checkpoint(self) -> Path:
        """The model at its best validation loss."""
        return self.path / CHECKPOINT

    @property
    def state(self) -> Path:
        """The latest weights, the optimizer's state and the step, to resume from."""
        return self.path / STATE

    @property
    def config(self) -> Path:
        """A preset that would make the same run."""
        return self.path / CONFIG

    @property
    def metrics(self) -> Path:
        """One JSON object per line (see `metrics.py`)."""
        return self.path / METRICS

    @property
    def report(self) -> Path:
        """The run's HTML report."""
        return self.path / "report.html"

    def has(self, file: Path) -> bool:
        """Whether one of the run's files exists."""
        with file_errors(file, "read"):
            return file.exists()

    def command(self, name: str) -> str:
        """A shell command about this run."""
        return f"minigpt {name} {argument(self.path)}"

    def write_config(self, toml: str) -> None:
        """Replaces the configuration."""
        _replace(self.config, toml)

    def write_report(self, html: str) -> None:
        """Replaces the report."""
        with file_errors(self.report, "written"):
            sweep(self.path, self.report.name, older_than=_LONGEST_WRITE)
        _replace(self.report, html)

    def read_metrics(self) -> list[Row]:
        """Every readable row of the metrics; empty if the file is missing."""
        with (
            file_errors(self.metrics, "read", also=(ValueError,)),
            suppress(FileNotFoundError, NotADirectoryError),
        ):
            return list(read_rows(read_bounded(self.metrics, _MOST_METRICS)))
        return []

    def append_metrics(self, rows: Sequence[Row]) -> None:
        """Appends rows: all of them or none."""
        data = "".join(map(to_line, rows)).encode()
        with file_errors(self.metrics, "written"), _appending(self.metrics) as file:
            length = file.seek(0, os.SEEK_END)
            try:
                while data:
                    data = data[file.write(data) :]
            except OSError:
                with suppress(OSError):
                    file.truncate(length)
                raise

    def sync_metrics(self) -> None:
        """Returns once the metrics are safely on the disk."""
        with file_errors(self.metrics, "written"), _appending(self.metrics) as file:
            os.fsync(file.fileno())

    def cut_metrics(self, step: int) -> None:
        """Drops what was logged after `step`, and a line that a crash left half-written."""
        kept = []
        raw = b""
        with (
            file_errors(self.metrics, "read", also=(ValueError,)),
            suppress(FileNotFoundError),
        ):
            raw = read_bounded(self.metrics, _MOST_METRICS)
        for line in raw.splitlines(keepends=True):
            try:
                if loads(line)["step"] <= step and line.endswith(b"\n"):
                    kept.append(line.decode())
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
        _replace(self.metrics, "".join(kept))


def file_errors(
    path: Path, done: Literal["read", "written"], also: tuple[type[Exception], ...] = ()
) -> AbstractContextManager[None]:
    """Turns a failed file operation inside a run folder into a `CheckpointError`."""
    if done == "read":
        return reraise_as(CheckpointError, path, done, also=also)
    hint = _("free some space or choose another run folder")
    return reraise_as(CheckpointError, path, done, hint=hint, settings=("out",), also=also)


def _appending(path: Path) -> FileIO:
    """Opens a file to append to it; a FIFO without a reader is an error, not waited for."""
    flags = getattr(os, "O_NONBLOCK", 0)
    return FileIO(path, "a", opener=lambda name, mode: os.open(name, mode | flags, 0o666))


def argument(path: Path) -> str:
    """A path as a shell command names it: quoted, and never like an option."""
    return shlex.quote(f"./{path}" if str(path).startswith("-") else str(path))


def _replace(path: Path, text: str) -> None:
    """Writes a file atomically."""
    with file_errors(path, "written"), replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def is_folder(path: Path) -> bool:
    """Whether a path is a folder.

    Raises:
        CheckpointError: the path cannot be read.
    """
    with file_errors(path, "read"):
        return path.is_dir()


def find_checkpoint(path: Path | None) -> tuple[Path, bool]:
    """The checkpoint a user means, and whether it was chosen for them.

    For a run folder, it is the run's. Without a path, or with the bare name
    `checkpoint.safetensors` when that file does not exist, it is the newest run's.

    Raises:
        CheckpointError: no run exists, or the path cannot be read.
    """
    with file_errors(path or RUNS, "read"):
        if path is None or (path == Path(CHECKPOINT) and not path.exists()):
            return newest(CHECKPOINT).checkpoint, True
        return (RunFolder(path).checkpoint if path.is_dir() else path), False


def newest(file: str) -> RunFolder:
    """The run under `runs/` whose `file` was written last.

    Raises:
        CheckpointError: no run has that file.
    """
    with file_errors(RUNS, "read"):
        found = sorted(RUNS.glob(f"*/{file}"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise CheckpointError(
            _("no {file} under {folder}; train a model: minigpt train --preset small").format(
                file=file, folder=RUNS.resolve()
            )
        )
    return RunFolder(found[-1].parent)
