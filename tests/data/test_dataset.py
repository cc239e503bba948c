"""Prepared datasets are never stale, never half made; batches are a function of their number."""

import itertools
import json
import os
import random
import shutil
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from minigpt_cli.config.schema import DataConfig
from minigpt_cli.data import dataset as module
from minigpt_cli.data import vocabulary
from minigpt_cli.data.batches import BatchSampler
from minigpt_cli.data.corpora import encodings
from minigpt_cli.data.corpora.corpus import Corpus, open_corpus
from minigpt_cli.data.corpora.sources import TextFile
from minigpt_cli.data.dataset import Dataset, encode_corpus, prepare_dataset
from minigpt_cli.data.metadata import digest_of
from minigpt_cli.data.workspace import Workspace
from minigpt_cli.errors import CorpusError, TokenizerError
from minigpt_cli.tokenizer.base import Job, Tokenizer
from minigpt_cli.tokenizer.char import CharTokenizer

# Twenty lines of 50 characters, no two alike: where the tests split them, no word is cut.
TEXT = "".join(f"{i:02}: two herons and 天地 wait, 19 boats don't move.\r\n" for i in range(20))
assert len(TEXT) == 1000
KINDS: tuple[Any, ...] = ("char", "word", "byte", "bpe")


@dataclass(frozen=True)
class Trained:
    """What a checkpoint says of its text."""

    data: DataConfig
    fingerprint: str


class Shelf:
    """A text file, and datasets prepared from it."""

    def __init__(self, folder: Path) -> None:
        self.file, self.data_dir = folder / "tale.txt", folder / "data"
        self.write(TEXT)

    def write(self, text: str) -> None:
        self.file.write_bytes(text.encode())

    @property
    def corpus(self) -> Corpus:
        return open_corpus((str(self.file),), self.data_dir, newlines="keep")

    def prepare(self, **settings: Any) -> Dataset:
        return prepare_dataset(self.corpus, DataConfig(**settings), self.data_dir)

    def folders(self) -> list[str]:
        return sorted(path.name for path in self.data_dir.glob("*/*") if path.is_dir())


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


@pytest.fixture
def no_tokenizing(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Makes preparing anything anew an error, until undone."""

    def refuse(*args: object) -> None:
        raise AssertionError("tokenized again")

    monkeypatch.setattr(vocabulary, "train_tokenizer", refuse)
    return monkeypatch


# The split


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_the_two_splits_are_the_first_and_last_characters_and_nothing_is_lost(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, kind: Any, chunk: int
) -> None:
    monkeypatch.setattr(encodings, "_CHUNK", chunk)
    dataset = shelf.prepare(tokenizer=kind, vocab_size=300 if kind == "bpe" else None)
    train, val = dataset.tokens("train"), dataset.tokens("val")
    assert dataset.tokenizer.decode(train) == TEXT[:900]
    assert dataset.tokenizer.decode(val) == TEXT[900:]
    assert dataset.tokens("all").tolist() == [*train.tolist(), *val.tolist()]


def test_facts_count_what_a_plain_reading_counts(shelf: Shelf) -> None:
    facts = shelf.prepare().metadata
    assert (facts.train_tokens, facts.val_tokens, facts.tokens) == (900, 100, 1000)
    assert facts.characters == 1000
    assert facts.text_bytes == len(TEXT.encode()) > 1000
    assert facts.vocab_size == len(set(TEXT))
    assert (facts.corpus, facts.kind, facts.dtype) == ("tale", "char", "uint16")


@pytest.mark.parametrize(("val_fraction", "train"), [(0.1, 900), (0.25, 750), (0.5, 500)])
def test_val_fraction_moves_the_split(shelf: Shelf, val_fraction: float, train: int) -> None:
    assert shelf.prepare(val_fraction=val_fraction).metadata.train_tokens == train


@pytest.mark.parametrize("length", [2, 3, 9, 10, 11, 99])
def test_first_nine_tenths_are_rounded_down(shelf: Shelf, length: int) -> None:
    shelf.write(TEXT[:length])
    facts = shelf.prepare().metadata
    assert facts.train_tokens == length * 9 // 10
    assert facts.val_tokens == length - length * 9 // 10


def test_bpe_learns_nothing_from_the_validation_text(shelf: Shelf) -> None:
    shelf.write("abcdefgh " * 100 + "zq" * 50)
    tokens = shelf.prepare(tokenizer="bpe", vocab_size=300).tokenizer.token_bytes
    assert b"abcdefgh" in tokens
    assert b"zq" not in tokens


@pytest.mark.parametrize("kind", ["char", "word"])
def test_characters_and_words_are_learned_from_the_whole_text(shelf: Shelf, kind: Any) -> None:
    shelf.write("one two " * 100 + "three Ω ")
    dataset = shelf.prepare(tokenizer=kind)
    assert "Ω".encode() in dataset.tokenizer.token_bytes
    assert dataset.tokenizer.decode(dataset.tokens("val")).endswith("three Ω ")


@pytest.mark.parametrize(("text", "given"), [("", "0 characters"), ("a", "1 character")])
def test_too_short_a_text_is_refused_with_what_is_needed_and_given(
    shelf: Shelf, text: str, given: str
) -> None:
    shelf.write(text)
    with pytest.raises(CorpusError, match=rf"tale\.txt: .* {given} .*2; use"):
        shelf.prepare()
    assert shelf.folders() == []


# The width of the ids


@pytest.mark.parametrize(("words", "dtype"), [(65_534, "uint16"), (65_535, "uint32")])
def test_ids_are_as_wide_as_the_vocabulary_needs(shelf: Shelf, words: int, dtype: str) -> None:
    text = "".join(f"w{i} " for i in range(words))
    shelf.write(text)  # with <unk> and the space, two more tokens than words
    dataset = shelf.prepare(tokenizer="word")
    assert dataset.metadata.vocab_size == words + 2
    assert dataset.tokens("train").dtype == dataset.metadata.dtype == dtype
    train = dataset.tokens("train")
    assert max(train) == words + 1  # of w9999, the last by spelling, as all are equally frequent
    # A word that the split cuts in two is known to neither side.
    known, _, _ = text[: len(text) * 9 // 10].rpartition(" ")
    assert dataset.tokenizer.decode(train).startswith(known + " ")


# Found again, never stale


def test_the_same_text_and_settings_are_not_tokenized_again(
    shelf: Shelf, no_tokenizing: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssertionError, match="tokenized again"):
        shelf.prepare()
    no_tokenizing.undo()
    first = shelf.prepare()
    no_tokenizing.setattr(vocabulary, "train_tokenizer", None)
    again = shelf.prepare()
    assert again.metadata == first.metadata
    assert again.tokens("all").tolist() == first.tokens("all").tolist()
    assert again.tokenizer.to_json() == first.tokenizer.to_json()


def test_changed_file_is_never_served_stale(shelf: Shelf) -> None:
    before = shelf.prepare()
    stat = shelf.file.stat()
    shelf.write(TEXT.replace("boats", "ducks"))  # as long as before, and as old
    os.utime(shelf.file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = shelf.prepare()
    assert after.metadata.fingerprint != before.metadata.fingerprint
    assert "ducks" in after.tokenizer.decode(after.tokens("all"))
    shelf.write(TEXT)
    assert shelf.prepare().metadata == before.metadata


def test_other_settings_are_never_served_stale(shelf: Shelf) -> None:
    datasets = [
        shelf.prepare(),
        shelf.prepare(val_fraction=0.2),
        shelf.prepare(tokenizer="byte"),
        shelf.prepare(tokenizer="word"),
        shelf.prepare(tokenizer="word", vocab_size=5),
        shelf.prepare(tokenizer="bpe", vocab_size=260),
        shelf.prepare(tokenizer="bpe", vocab_size=270),
    ]
    assert len({dataset.folder for dataset in datasets}) == len(datasets)
    assert [dataset.metadata.vocab_size for dataset in datasets[-3:]] == [5, 260, 270]


def test_what_does_not_change_the_tokens_does_not_change_the_fingerprint(shelf: Shelf) -> None:
    known = shelf.prepare().metadata.fingerprint
    assert shelf.prepare(sampling="random").metadata.fingerprint == known
    shelf.file.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert shelf.prepare().metadata.fingerprint == known
    shelf.file.write_bytes(TEXT.encode("gb18030"))
    corpus = open_corpus((str(shelf.file),), shelf.data_dir, "gb18030", "keep")
    assert prepare_dataset(corpus, DataConfig(), shelf.data_dir).metadata.fingerprint == known


# Interrupted


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
def test_interrupted_preparation_leaves_nothing_to_be_trusted(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    encoded: list[Job] = []

    def breaks_off(self: Tokenizer, job: Job) -> np.ndarray[Any, Any]:
        encoded.append(job)
        if len(encoded) == 2:
            raise error
        return self.encode_array(*job.texts)

    with monkeypatch.context() as patch:
        patch.setattr(CharTokenizer, "encode_job", breaks_off)
        with pytest.raises(type(error)):
            shelf.prepare()
    assert shelf.folders() == []
    assert shelf.prepare().metadata.tokens == 1000


def test_a_full_disk_is_one_error_with_the_way_out(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CorpusError, match=r"cannot be written \(No space .*another data folder"):
        shelf.prepare()
    assert shelf.folders() == []


def test_what_a_killed_process_left_is_no_obstacle(shelf: Shelf) -> None:
    folder = shelf.prepare().folder
    # Killed before the last step: the folder lies there under its temporary name.
    left = folder.with_name(f".{folder.name}.part")
    folder.rename(left)
    (left / "train.bin").write_bytes(b"half")
    assert shelf.prepare().metadata.train_tokens == 900
    assert shelf.folders() == [folder.name]


@pytest.mark.parametrize("name", ["facts.json", "tokenizer.json", "train.bin", "val.bin"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_damaged_folder_is_prepared_again(shelf: Shelf, name: str, damage: str) -> None:
    first = shelf.prepare()
    before = first.tokens("train").tolist()
    path = first.folder / name
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    again = shelf.prepare()
    assert again.tokens("train").tolist() == before
    assert path.stat().st_size > 0
    assert shelf.folders() == [first.folder.name]


def test_what_another_process_is_preparing_is_waited_for_and_found(
    shelf: Shelf, no_tokenizing: pytest.MonkeyPatch
) -> None:
    no_tokenizing.undo()
    first = shelf.prepare()
    kept = shelf.data_dir / "kept"
    first.folder.rename(kept)
    no_tokenizing.setattr(vocabulary, "train_tokenizer", None)
    lock = FileLock(first.folder.with_name(f"{first.folder.name}.lock"))
    stages = []

    def progress(stage: str, done: int, total: int) -> None:
        stages.append(stage)
        if stage.startswith("Waiting"):  # so the other is given time to finish
            kept.rename(first.folder)
            lock.release()

    with lock:
        again = prepare_dataset(shelf.corpus, DataConfig(), shelf.data_dir, progress)
    assert again.metadata == first.metadata
    assert stages[-1] == "Waiting for another process"
    assert "Tokenizing" not in stages


def test_impossible_settings_are_refused_before_anything_is_written(shelf: Shelf) -> None:
    with pytest.raises(TokenizerError, match="vocab_size = 50"):
        shelf.prepare(vocab_size=50)
    assert shelf.folders() == []


# Exactly the text that was read


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("after", ["Reading", "Tokenizing"])
def test_a_text_that_changes_while_it_is_tokenized_is_not_kept(
    shelf: Shelf, kind: Any, after: str
) -> None:
    shelf.write(TEXT * 100)
    changes = [TEXT.replace("boats", "goats") * 100, TEXT.replace("boats", "Ωmega") * 100]
    if after == "Tokenizing":  # a part that had been read already would be the whole
        changes += [TEXT * 50, TEXT * 101]
    config = DataConfig(tokenizer=kind, vocab_size=300 if kind == "bpe" else None)
    for change in changes:
        shelf.write(TEXT * 100)
        done = False

        def progress(stage: str, *_: int) -> None:
            nonlocal done
            if stage == after and not done:
                done = True
                shelf.write(change)  # noqa: B023 - called within this turn

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(encodings, "_CHUNK", 1 << 12)
            with pytest.raises(CorpusError, match=r"^tale: the text changed while it was read"):
                prepare_dataset(shelf.corpus, config, shelf.data_dir, progress)
        assert shelf.folders() == []


def test_another_text_than_the_expected_one_leaves_nothing_on_the_disk(shelf: Shelf) -> None:
    known = shelf.prepare().metadata.fingerprint
    shelf.write("A private diary.\n" * 50)
    corpus = open_corpus((str(shelf.file),), shelf.data_dir)
    with pytest.raises(CorpusError, match="the text has changed since the model was trained on it"):
        prepare_dataset(corpus, DataConfig(), shelf.data_dir, expected=known)
    assert shelf.folders() == [known]


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_a_model_from_before_marks_belonged_to_words_gets_its_own_tokens(
    shelf: Shelf, kind: Any
) -> None:
    shelf.write("हिन्दी भाषा " * 40)
    config = DataConfig(tokenizer=kind)
    reading = shelf.prepare(tokenizer=kind).reading
    before = module._fingerprint(reading, config, splitting=1)
    dataset = prepare_dataset(shelf.corpus, config, shelf.data_dir, expected=before)
    assert dataset.metadata.fingerprint == before
    assert dataset.tokenizer.decode(dataset.tokens("all")) == "हिन्दी भाषा " * 40
    assert len(dataset.tokenizer.encode("हिन्दी")) == 6
    assert len(shelf.prepare(tokenizer=kind).tokenizer.encode("हिन्दी")) == 1


@pytest.mark.parametrize("kind", ["char", "word"])
def test_a_model_from_before_line_endings_were_read_as_lf_gets_its_own_text(
    shelf: Shelf, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shelf.file.parent)
    shelf.write("one\r\ntwo\rthree\r\n" * 20)
    data = DataConfig(corpus=(str(shelf.file),), tokenizer=kind)
    reading = shelf.prepare(tokenizer=kind).reading  # with its line endings kept
    before = Trained(data, module._fingerprint(reading, data, splitting=1))
    dataset = Workspace(shelf.data_dir).own_dataset(before)
    assert dataset.tokenizer.decode(dataset.tokens("all")) == "one\r\ntwo\rthree\r\n" * 20
    today = Workspace(shelf.data_dir).dataset(data)
    assert today.tokenizer.decode(today.tokens("all")) == "one\ntwo\nthree\n" * 20
    shelf.write("another text")
    shutil.rmtree(shelf.data_dir)  # or else it would be found there as it was prepared
    with pytest.raises(CorpusError, match="the text has changed since"):
        Workspace(shelf.data_dir).own_dataset(before)


def lies(metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Metadata that claims something else, in every field."""
    for name, value in metadata.items():
        yield {key: found for key, found in metadata.items() if key != name}
        others: tuple[object, ...] = (None, "x", -1, [], True, 1e400, f"{value}\x1b[31m")
        for other in others:
            yield {**metadata, name: other}
    yield {**metadata, "more": 1}
    yield {**metadata, "train_tokens": str(metadata["train_tokens"])}
    yield {**metadata, "vocab_size": metadata["vocab_size"] + 1}
    yield {**metadata, "kind": "byte"}
    yield {**metadata, "dtype": "uint32"}
    yield {**metadata, "characters": 999}


def test_prepared_metadata_that_is_not_exactly_right_is_not_believed(shelf: Shelf) -> None:
    first = shelf.prepare()
    path = first.folder / "facts.json"
    right = json.loads(path.read_text())
    for wrong in lies(right):
        path.write_text(json.dumps(wrong))
        again = shelf.prepare()
        assert {**json.loads(path.read_text()), "seconds": 0} == {**right, "seconds": 0}
        assert again.metadata.corpus == "tale"


@pytest.mark.parametrize("name", ["tokenizer.json", "train.bin", "val.bin"])
def test_prepared_files_that_were_exchanged_are_not_believed(shelf: Shelf, name: str) -> None:
    before = shelf.prepare().tokens("all").tolist()
    path = shelf.prepare().folder / name
    data = path.read_bytes()
    swapped = bytearray(data)
    swapped[-6], swapped[-8] = swapped[-8], swapped[-6]  # still a vocabulary, still ids
    assert bytes(swapped) != data
    path.write_bytes(swapped)
    dataset = shelf.prepare()
    assert path.read_bytes() == data
    assert dataset.tokens("all").tolist() == before


def test_ids_beyond_the_vocabulary_are_not_believed_even_if_they_are_signed(shelf: Shelf) -> None:
    folder = shelf.prepare().folder
    ids = np.fromfile(folder / "val.bin", np.uint16)
    ids[3] = 60_000
    ids.tofile(folder / "val.bin")
    metadata = json.loads((folder / "facts.json").read_text())
    metadata["sha256"] = digest_of(folder, ("train.bin", "val.bin"))
    (folder / "facts.json").write_text(json.dumps(metadata))
    assert shelf.prepare().tokens("val").max() < 100


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
@pytest.mark.parametrize("name", ["facts.json", "tokenizer.json", "train.bin", "val.bin"])
def test_special_files_in_a_prepared_folder_are_not_waited_for(shelf: Shelf, name: str) -> None:
    path = shelf.prepare().folder / name
    path.unlink()
    os.mkfifo(path)
    shelf.prepare()
    assert path.is_file()
    path.unlink()
    path.symlink_to("/dev/zero")
    shelf.prepare()
    assert path.is_file()
    assert not path.is_symlink()


def test_a_huge_file_in_place_of_metadata_is_not_read(shelf: Shelf) -> None:
    path = shelf.prepare().folder / "facts.json"
    with path.open("ab") as file:
        file.truncate(1 << 40)
    shelf.prepare()
    assert path.stat().st_size < 1000


@pytest.mark.skipif(os.name != "posix", reason="needs file permissions")
@pytest.mark.parametrize(
    ("text", "folder", "files"),
    [(0o600, 0o700, 0o600), (0o640, 0o750, 0o640), (0o644, 0o755, 0o644), (0o444, 0o755, 0o644)],
)
def test_a_prepared_text_is_as_private_as_its_source(
    shelf: Shelf, text: int, folder: int, files: int
) -> None:
    umask = os.umask(0o022)
    try:
        shelf.file.chmod(text)
        public = shelf.file.with_name("public.txt")
        public.write_text("open\n")
        corpus = open_corpus((str(public), str(shelf.file)), shelf.data_dir)
        prepared = prepare_dataset(corpus, DataConfig(), shelf.data_dir).folder
        assert prepared.stat().st_mode & 0o777 == folder
        assert {path.stat().st_mode & 0o777 for path in prepared.iterdir()} == {files}
        shelf.file.chmod(0o600)  # and one that becomes private later, from then on
        prepare_dataset(corpus, DataConfig(), shelf.data_dir)
        assert prepared.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in prepared.iterdir()} == {0o600}
    finally:
        os.umask(umask)


# Streams


def test_a_large_text_is_tokenized_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encodings, "_CHUNK", 1 << 16)
    line = "天 heron waits by the water and counts the boats that pass.\n"
    path = tmp_path / "large.txt"
    path.write_text(line * 200_000, encoding="utf-8")
    tracemalloc.start()
    try:
        dataset = prepare_dataset(Corpus("large", (TextFile(path),)), DataConfig(), tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert dataset.metadata.characters == len(line) * 200_000 > 11_000_000
    assert peak < 3_000_000


def test_every_stage_reports_every_byte(shelf: Shelf) -> None:
    seen: dict[str, tuple[int, int]] = {}

    def progress(stage: str, done: int, total: int) -> None:
        seen[stage] = (done, total)

    prepare_dataset(shelf.corpus, DataConfig(tokenizer="word"), shelf.data_dir, progress)
    size = len(TEXT.encode())
    stages = ("Reading", "Learning tokens", "Tokenizing")
    assert seen == dict.fromkeys(stages, (size, size))


# A text cut with a tokenizer that is there already


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["train", "val", "all"])
def test_a_text_is_cut_like_its_dataset_by_a_tokenizer_that_exists(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, kind: Any, split: Any
) -> None:
    dataset = shelf.prepare(tokenizer=kind)
    part = {"train": TEXT[:900], "val": TEXT[900:], "all": TEXT}[split]
    monkeypatch.setattr(encodings, "_CHUNK", 11)
    ids = encode_corpus(shelf.corpus, dataset.tokenizer, split, 0.1).tolist()
    assert ids == dataset.tokenizer.encode(part)
    if split != "all":  # bpe may cut the place where the parts meet in another way
        assert ids == dataset.tokens(split).tolist()


def test_encoding_an_empty_text_gives_no_ids(shelf: Shelf) -> None:
    tokenizer = CharTokenizer("a")
    shelf.write("")
    for split in ("train", "val", "all"):
        assert encode_corpus(shelf.corpus, tokenizer, split, 0.1).tolist() == []


def test_unknown_character_deep_in_a_text_is_placed(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encodings, "_CHUNK", 10)
    tokenizer = CharTokenizer(TEXT)
    shelf.write(TEXT[:500] + "Ω")
    with pytest.raises(TokenizerError, match=r"'Ω' .* first at character 501 of the text"):
        encode_corpus(shelf.corpus, tokenizer, "all", 0.1)


# Batches

Sampling = Literal["random", "epochs"]
both_ways = pytest.mark.parametrize("sampling", ["random", "epochs"])


def sampler(
    count: int = 1000,
    batch_size: int = 4,
    block_size: int = 16,
    seed: int = 0,
    sampling: Sampling = "epochs",
) -> BatchSampler:
    """Over tokens that are their own places, so that a batch tells where it was taken."""
    return BatchSampler(np.arange(count, dtype=np.uint16), batch_size, block_size, seed, sampling)


@both_ways
def test_targets_are_the_inputs_moved_by_one(sampling: Sampling) -> None:
    x, y = sampler(sampling=sampling).batch(3)
    assert x.shape == y.shape == (4, 16)
    assert x.dtype == y.dtype == torch.int64
    assert torch.equal(y, x + 1)  # the token at place p is p
    assert torch.equal(x, x[:, :1] + torch.arange(16))


def test_ids_above_65535_come_through_a_batch() -> None:
    tokens = np.arange(100_000, 100_009, dtype=np.uint32)
    x, y = BatchSampler(tokens, 1, 8, 0, "epochs").batch(0)
    assert x.tolist() == [list(range(100_000, 100_008))]
    assert y.tolist() == [list(range(100_001, 100_009))]


@both_ways
def test_a_batch_depends_on_seed_and_number_only(sampling: Sampling) -> None:
    forwards, backwards = sampler(sampling=sampling), sampler(sampling=sampling)
    numbers = range(60)  # several epochs of 15 batches
    one = {number: forwards.batch(number)[0] for number in numbers}
    torch.manual_seed(1)
    random.seed(1)
    two = {number: backwards.batch(number)[0] for number in reversed(numbers)}
    assert all(torch.equal(one[number], two[number]) for number in numbers)
    fresh = sampler(sampling=sampling).batch(37)[0]
    assert torch.equal(one[37], fresh)


@both_ways
def test_seeds_and_numbers_give_other_batches(sampling: Sampling) -> None:
    starts = [
        tuple(sampler(seed=seed, sampling=sampling).starts(number))
        for seed, number in itertools.product(range(4), range(10))
    ]
    assert len(set(starts)) == len(starts)


@given(
    count=st.integers(2, 400),
    block_size=st.integers(1, 40),
    batch_size=st.integers(1, 9),
    seed=st.integers(0, 2**31 - 1),
    number=st.integers(0, 10**7),
    sampling=st.sampled_from(["random", "epochs"]),
)
def test_no_window_leaves_the_text(
    count: int, block_size: int, batch_size: int, seed: int, number: int, sampling: Sampling
) -> None:
    if count < block_size + 1:
        block_size = count - 1
    made = sampler(count, batch_size, block_size, seed, sampling)
    starts = made.starts(number)
    assert starts.shape == (batch_size,)
    assert min(starts) >= 0
    assert max(starts) + block_size + 1 <= count
    x, y = made.batch(number)
    assert x[:, 0].tolist() == starts.tolist()
    assert y[:, -1].tolist() == (starts + block_size).tolist()


def test_random_windows_reach_from_the_first_place_to_the_last() -> None:
    made = sampler(count=20, block_size=16, sampling="random")
    starts = {int(start) for number in range(100) for start in made.starts(number)}
    assert starts == {0, 1, 2, 3}  # from 3, the last target is token 19


@pytest.mark.parametrize(("count", "block_size"), [(1000, 16), (1001, 10), (35, 16), (17, 16)])
def test_an_epoch_uses_each_window_once(count: int, block_size: int) -> None:
    made = sampler(count, batch_size=1, block_size=block_size)
    # Side by side from any offset below the block size, so many fit whole.
    windows = max(1, (count - 1) // block_size - 1)
    offsets, orders = set(), set()
    for epoch in range(5):
        numbers = range(epoch * windows, (epoch + 1) * windows)
        starts = [int(made.starts(number)[0]) for number in numbers]
        offset = min(starts)
        assert sorted(starts) == [offset + i * block_size for i in range(windows)]
        offsets.add(offset)
        orders.add(tuple(start - offset for start in starts))
    if count > 500:
        assert len(offsets) > 1
        assert len(orders) == 5


def test_epochs_follow_each_other_within_a_batch() -> None:
    wide, narrow = sampler(batch_size=25), sampler(batch_size=1)
    expected = [int(narrow.starts(number)[0]) for number in range(100)]
    assert [int(start) for number in range(4) for start in wide.starts(number)] == expected


@both_ways
def test_too_short_a_training_text_is_refused_with_what_would_fit(sampling: Sampling) -> None:
    with pytest.raises(CorpusError) as caught:
        sampler(count=40, block_size=40, sampling=sampling)
    message = str(caught.value)
    assert "has 40 tokens and block_size = 40 needs at least 41" in message
    assert "model.block_size = 9" in message
    assert sampler(count=40, block_size=9, sampling=sampling).batch(0)
    assert sampler(count=41, block_size=40, sampling=sampling).batch(0)


def test_a_tiny_text_is_not_offered_a_tiny_block() -> None:
    with pytest.raises(CorpusError, match=r"use a longer text$"):
        sampler(count=16)


def test_a_mapped_dataset_feeds_batches(shelf: Shelf) -> None:
    dataset = shelf.prepare()
    x, y = BatchSampler(dataset.tokens("train"), 2, 32, 0, "epochs").batch(0)
    for row, target in zip(x.tolist(), y.tolist(), strict=True):
        assert dataset.tokenizer.decode([row[0], *target]) in TEXT[:900]
    assert json.loads((dataset.folder / "facts.json").read_text())["train_tokens"] == 900
