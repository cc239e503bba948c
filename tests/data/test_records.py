"""What was found out about files is believed until they change, and never longer."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigpt_cli.config.schema import DataConfig
from minigpt_cli.data import records
from minigpt_cli.data.corpora import known_texts
from minigpt_cli.data.corpora.corpus import open_corpus
from minigpt_cli.data.dataset import Dataset, find_prepared, prepare_dataset
from minigpt_cli.data.records import RECORD, is_settled, stamp
from minigpt_cli.errors import CorpusError

TEXT = "A heron waits by the water. 天地\n" * 30


class Shelf:
    """A text that has been at rest for longer than the clock's step, and its datasets."""

    def __init__(self, folder: Path) -> None:
        self.file, self.data_dir = folder / "tale.txt", folder / "data"
        self.stages: list[str] = []
        self.write(TEXT)

    def write(self, text: str) -> None:
        self.file.write_text(text, encoding="utf-8")
        self.rest()

    def rest(self) -> None:
        time.sleep(0.025)

    def prepare(self, verify: bool = False, **settings: Any) -> Dataset:
        self.stages = []
        corpus = open_corpus((str(self.file),), self.data_dir)
        return prepare_dataset(
            corpus, DataConfig(**settings), self.data_dir, self._progress, verify=verify
        )

    def _progress(self, stage: str, done: int, total: int) -> None:
        if stage not in self.stages:
            self.stages.append(stage)

    def prepared(self, verify: bool = False, **settings: Any) -> Dataset:
        """A dataset that is known in full: its tokens were at rest too when they were verified."""
        self.prepare(**settings)
        self.rest()
        return self.prepare(verify, **settings)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setattr(records, "_STEP_NS", 20_000_000)  # twice that of Linux, for short rests
    return Shelf(tmp_path)


@pytest.fixture
def nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called, makes reading a text or its tokens an error."""

    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    def start() -> None:
        monkeypatch.setattr(known_texts, "read_corpus", refuse)
        monkeypatch.setattr(records, "digest_of", refuse)

    return start


def test_unchanged_files_are_found_again_without_reading_them(
    shelf: Shelf, nothing_is_read: Callable[[], None]
) -> None:
    first = shelf.prepared()
    nothing_is_read()
    again = shelf.prepare()
    assert again.metadata == first.metadata
    assert again.reading == first.reading
    assert again.tokens("all").tolist() == first.tokens("all").tolist()
    with pytest.raises(AssertionError, match="read again"):
        shelf.prepare(verify=True)


def test_another_kind_of_tokenizer_reads_the_text_only_to_tokenize_it(shelf: Shelf) -> None:
    first = shelf.prepared()
    other = shelf.prepare(tokenizer="word")
    assert "Reading" not in shelf.stages
    assert other.reading == first.reading
    assert other.tokenizer.decode(other.tokens("all")) == TEXT


def same_size(shelf: Shelf) -> None:
    shelf.file.write_text(TEXT.replace("heron", "goose"), encoding="utf-8")


def same_size_and_time(shelf: Shelf) -> None:
    status = shelf.file.stat()
    same_size(shelf)
    os.utime(shelf.file, ns=(status.st_atime_ns, status.st_mtime_ns))


def replaced(shelf: Shelf) -> None:
    other = shelf.file.with_name("other")
    other.write_text(TEXT.replace("heron", "goose"), encoding="utf-8")
    status = shelf.file.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(shelf.file)


@pytest.mark.parametrize("change", [same_size, same_size_and_time, replaced])
def test_a_changed_text_is_read_again(shelf: Shelf, change: Callable[[Shelf], None]) -> None:
    if os.name != "posix" and change is same_size_and_time:
        pytest.skip("Windows does not keep the time of the last change of status")
    first = shelf.prepared()
    change(shelf)
    after = shelf.prepare()
    assert shelf.stages[0] == "Reading"
    assert after.metadata.fingerprint != first.metadata.fingerprint
    assert "goose" in after.tokenizer.decode(after.tokens("all"))


def test_a_text_that_changed_within_the_step_of_the_clock_is_read_next_time(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(records, "_STEP_NS", 10**12)
        shelf.prepare()  # a write within the same step would not show
        shelf.prepare()
        assert shelf.stages == ["Reading"]
    shelf.prepare()
    shelf.prepare()
    assert shelf.stages == []


def test_a_coarse_clock_is_given_more_time() -> None:
    second = 1_000_000_000
    fine, coarse = (7, 0, 5 * second + 1, 3), (7, 0, 5 * second, 3)
    for status, step in ((fine, second // 10), (coarse, 2 * second)):
        changed = status[2]
        assert not is_settled(status, changed)
        assert not is_settled(status, changed + step)
        assert is_settled(status, changed + step + second // 4)
    assert not is_settled(fine, 4 * second)  # a drive whose clock is ahead is never believed


@pytest.mark.parametrize("name", ["train.bin", "val.bin"])
def test_a_flipped_bit_in_known_tokens_is_found(shelf: Shelf, name: str) -> None:
    path = shelf.prepared().folder / name
    right, status = path.read_bytes(), path.stat()
    wrong = bytearray(right)
    wrong[len(wrong) // 3] ^= 1
    path.write_bytes(wrong)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    if os.name == "posix":
        shelf.prepare()
        assert path.read_bytes() == right
        path.write_bytes(wrong)
        shelf.rest()
    shelf.prepare(verify=True)
    assert path.read_bytes() == right


def test_verifying_finds_what_no_time_shows(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the disk had changed the bytes, or a program through a memory map."""
    folder = shelf.prepared().folder
    ids = np.fromfile(folder / "val.bin", np.uint16)
    ids[0] ^= 1
    ids.tofile(folder / "val.bin")
    record = json.loads((folder / RECORD).read_text())
    record["prepared"]["val.bin"] = stamp(folder / "val.bin")
    (folder / RECORD).write_text(json.dumps(record))
    assert shelf.prepare().tokens("val")[0] == ids[0]
    assert shelf.prepare(verify=True).tokens("val")[0] != ids[0]


def test_a_wrong_record_costs_a_reading_and_no_more(shelf: Shelf) -> None:
    folder = shelf.prepared().folder
    record = json.loads((folder / RECORD).read_text())
    (text,) = record["texts"].values()
    text[0]["sha256"] = "0" * 64
    (folder / RECORD).write_text(json.dumps(record))
    dataset = shelf.prepare()
    assert dataset.tokenizer.decode(dataset.tokens("all")) == TEXT
    assert dataset.folder == folder


@pytest.mark.parametrize("damage", ["", "[]", '{"texts": {"x": 1}}', "\udc80", '{"more": {}}'])
def test_a_damaged_record_is_as_none(shelf: Shelf, damage: str) -> None:
    folder = shelf.prepared().folder
    (folder / RECORD).write_bytes(damage.encode("utf-8", "surrogateescape"))
    shelf.prepare()
    assert shelf.stages == ["Reading"]
    shelf.prepare()
    assert shelf.stages == []


def test_a_text_that_is_gone_is_no_longer_known(shelf: Shelf) -> None:
    fingerprint = shelf.prepared().metadata.fingerprint
    corpus = open_corpus((str(shelf.file),), shelf.data_dir)
    shelf.file.unlink()
    with pytest.raises(CorpusError, match=r"tale\.txt: cannot be read"):
        prepare_dataset(corpus, DataConfig(), shelf.data_dir)
    found = find_prepared(shelf.data_dir, fingerprint, verify=True)
    assert found is not None
    assert found.tokenizer.decode(found.tokens("all")) == TEXT
