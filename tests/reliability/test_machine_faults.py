"""What the machine refuses is reported in one line, and earlier files are kept."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from minigpt_cli.config.schema import DataConfig
from minigpt_cli.data.corpora.corpus import Corpus
from minigpt_cli.data.corpora.sources import TextFile
from minigpt_cli.data.dataset import prepare_dataset
from minigpt_cli.errors import MinigptError
from minigpt_cli.runs.checkpoint import read_tensors, write_tensors
from minigpt_cli.runs.folder import RunFolder
from minigpt_cli.runs.metrics import SampleRow, StepRow

resource = pytest.importorskip("resource")
LARGE = 300_000
"""Bytes written in these tests, more than any of the full disks holds."""


@dataclass(frozen=True)
class Place:
    """A folder with a file in it, and what is about to be written there."""

    folder: Path
    file: Path
    """The file written, or part of the folder's name for a dataset."""
    write: Callable[[], object]

    def content(self) -> dict[str, bytes]:
        """Every file, and every temporary folder, that is not a lock."""
        found = [path for path in sorted(self.folder.rglob("*")) if path.suffix != ".lock"]
        return {str(path): path.read_bytes() if path.is_file() else b"folder" for path in found}

    def refused(self, reason: int) -> str:
        """Checks that the message is one line with the path and the system's reason; returns it."""
        with pytest.raises(MinigptError) as caught:
            self.write()
        message = str(caught.value)
        assert "\n" not in message
        assert str(self.file) in message
        assert os.strerror(reason) in message
        assert message.count("; ") == 1  # and what to do
        return message


@pytest.fixture(params=["tensors", "config", "cut_metrics", "append_metrics", "dataset"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    folder, run = tmp_path / "place", RunFolder(tmp_path / "place")
    folder.mkdir()
    if request.param == "tensors":
        write_tensors(run.state, {"w": torch.ones(3)}, {"step": "1"})
        large = {"w": torch.zeros(LARGE // 4)}
        return Place(folder, run.state, lambda: write_tensors(run.state, large, {"step": "2"}))
    if request.param == "config":
        run.write_config("old = 1")
        return Place(folder, run.config, lambda: run.write_config("new" * (LARGE // 3)))
    if request.param == "cut_metrics":
        run.append_metrics([SampleRow(1, "x" * LARGE)])
        return Place(folder, run.metrics, lambda: run.cut_metrics(1))
    if request.param == "append_metrics":
        run.append_metrics([StepRow(1, 2.0)])
        row = SampleRow(2, "x" * LARGE)
        return Place(folder, run.metrics, lambda: run.append_metrics([row]))
    text = tmp_path / "tale.txt"
    text.write_text("A heron.\n" * (LARGE // 9), encoding="utf-8")
    (folder / "tale").mkdir()
    corpus = Corpus("tale", (TextFile(text),))
    prepare_dataset(corpus, DataConfig(tokenizer="byte"), folder)
    return Place(folder, folder / "tale", lambda: prepare_dataset(corpus, DataConfig(), folder))


@contextmanager
def no_large_files(place: Place) -> Iterator[None]:
    """Limits files to a third of what is about to be written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGE // 3, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def full_disk(place: Place) -> Iterator[None]:
    """Moves the folder to a disk of its own that is too small for what is about to be written."""
    kept = place.folder.with_name("kept")
    place.folder.rename(kept)
    place.folder.mkdir()
    used = sum(path.stat().st_size for path in kept.rglob("*") if path.is_file())
    size = used + LARGE // 3
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place.folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small disk")
    try:
        shutil.copytree(kept, place.folder, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", str(place.folder)], check=True)


@pytest.mark.parametrize(
    ("disk", "reason"), [(no_large_files, errno.EFBIG), (full_disk, errno.ENOSPC)]
)
def test_full_disk(
    place: Place, disk: Callable[[Place], AbstractContextManager[None]], reason: int
) -> None:
    with disk(place):
        before = place.content()
        assert "free some space" in place.refused(reason)
        after = place.content()
    if place.file.name == "metrics.jsonl":  # a line may be there in part; resuming cuts it away
        assert after[str(place.file)].startswith(before.pop(str(place.file)))
        del after[str(place.file)]
    assert after == before


def make_writable(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)


def test_read_only_folder(place: Place, unprivileged: None, request: pytest.FixtureRequest) -> None:
    before = place.content()
    for path in (place.folder, *place.folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    request.addfinalizer(lambda: make_writable(place.folder))
    place.refused(errno.EACCES)
    assert place.content() == before


def test_folder_that_is_gone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    if place.file.name == "tale":  # a data folder is made again; so it goes when half is written
        real_fsync = os.fsync

        def gone(descriptor: int) -> None:
            real_fsync(descriptor)
            shutil.rmtree(place.folder)

        monkeypatch.setattr(os, "fsync", gone)
    else:
        shutil.rmtree(place.folder)
    place.refused(errno.ENOENT)
    assert not place.folder.exists()


def test_disk_that_fails_to_sync(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before = place.content()
    monkeypatch.setattr(os, "fsync", broken)
    if place.file.name == "metrics.jsonl":  # not worth a sync for each line
        with suppress(MinigptError):
            place.write()
        assert place.content()[str(place.file)].startswith(before[str(place.file)])
        return
    place.refused(errno.EIO)
    assert place.content() == before


def test_folder_that_fails_to_sync_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.safetensors"
    write_tensors(path, {"w": torch.ones(3)}, {"step": "1"})
    synced = []

    def broken(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(MinigptError, match=os.strerror(errno.EIO)):
        write_tensors(path, {"w": torch.zeros(3)}, {"step": "2"})
    tensors, metadata = read_tensors(path)
    assert (tensors["w"].tolist(), metadata) == ([0.0] * 3, {"step": "2"})
    assert list(tmp_path.iterdir()) == [path]


def test_prepared_dataset_in_a_read_only_folder_is_found(
    tmp_path: Path, unprivileged: None, request: pytest.FixtureRequest
) -> None:
    text, data_dir = tmp_path / "tale.txt", tmp_path / "data"
    text.write_text("A heron waits.\n" * 20, encoding="utf-8")
    first = prepare_dataset(Corpus("tale", (TextFile(text),)), DataConfig(), data_dir)
    (data_dir / "tale" / f"{first.folder.name}.lock").unlink()
    for path in (data_dir, *data_dir.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    request.addfinalizer(lambda: make_writable(data_dir))
    found = prepare_dataset(Corpus("tale", (TextFile(text),)), DataConfig(), data_dir)
    assert found.metadata == first.metadata
    assert found.tokens("all").tolist() == first.tokens("all").tolist()
