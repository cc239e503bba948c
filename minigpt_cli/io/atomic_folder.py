"""Folders that are there whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `path` once its files are safely on the disk.

    Nothing is replaced if the block raises. A process that is killed leaves a hidden folder beside
    `path`, whose name begins with its own.

    Raises:
        OSError: the disk refuses; at `path` is what was there before, or the whole new folder.
    """
    around = Path(tempfile.mkdtemp(".part", f".{path.name}.", path.parent))
    new, old = around / "new", around / "old"
    try:
        new.mkdir()
        yield new
        for file in new.iterdir():
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())
        if path.exists():
            path.rename(old)
        try:
            new.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    finally:
        shutil.rmtree(around, ignore_errors=True)
