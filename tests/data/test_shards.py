"""Large texts lie in shards: the same ones whatever is interrupted, and however many cores work."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt_cli.config.schema import DataConfig
from minigpt_cli.data.corpora import encodings
from minigpt_cli.data.corpora.corpus import open_corpus
from minigpt_cli.data.dataset import Dataset, find_prepared, prepare_dataset
from minigpt_cli.data.metadata import read_metadata
from minigpt_cli.data.tokens import encoders, shards
from minigpt_cli.data.tokens.encoders import Encoders, encoding
from minigpt_cli.data.tokens.layout import layout_of
from minigpt_cli.data.tokens.sharded_tokens import ShardedTokens
from minigpt_cli.data.tokens.shards import MANIFEST, read_manifest
from minigpt_cli.errors import CorpusError, TokenizerError
from minigpt_cli.tokenizer.base import Job
from minigpt_cli.tokenizer.bpe import BPETokenizer
from minigpt_cli.tokenizer.char import CharTokenizer

TEXT = "".join(f"{i:03}: two herons and 天地 wait, boats don't move.\n" for i in range(400))
PIECE = 1 << 10
KINDS: tuple[Any, ...] = ("char", "word", "byte", "bpe")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is large, and a shard holds a few pieces of text."""
    monkeypatch.setattr(shards, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(shards, "SHARD_TOKENS", 2500)
    monkeypatch.setattr(encodings, "_CHUNK", PIECE)


def prepare(folder: Path, kind: Any = "char", **options: Any) -> Dataset:
    path = folder / "tale.txt"
    if not path.exists():
        path.write_text(TEXT, encoding="utf-8")
    config = DataConfig(tokenizer=kind, vocab_size=300 if kind == "bpe" else None)
    return prepare_dataset(open_corpus((str(path),), folder / "data"), config, folder / "data",
                           **options)  # fmt: skip


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*-*.bin")}


@pytest.mark.parametrize("kind", KINDS)
def test_shards_together_are_what_one_file_would_be(
    tmp_path: Path, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharded = prepare(tmp_path, kind)
    assert len(files(sharded.folder)) > 2
    with monkeypatch.context() as patch:
        patch.setattr(shards, "WHOLE_BYTES", 10**9)
        (tmp_path / "other").mkdir()
        whole = prepare(tmp_path / "other", kind)
    assert [path.name for path in whole.folder.glob("*.bin")] != []
    for split in ("train", "val", "all"):
        expected = np.asarray(whole.tokens(split))
        found = sharded.tokens(split)
        assert isinstance(found, ShardedTokens)
        assert len(found) == len(expected)
        assert found.tolist() == expected.tolist()
        assert np.asarray(found).tolist() == expected.tolist()
    assert sharded.metadata.train_tokens == whole.metadata.train_tokens
    assert sharded.metadata.fingerprint == whole.metadata.fingerprint


def test_a_text_prepared_as_one_file_stays_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shards, "WHOLE_BYTES", 10**9)
        whole = prepare(tmp_path)
    assert not isinstance(prepare(tmp_path).tokens("train"), ShardedTokens)
    assert prepare(tmp_path).metadata == whole.metadata


def test_the_manifest_counts_and_hashes_every_shard(tmp_path: Path) -> None:
    folder = prepare(tmp_path).folder
    found = read_manifest(folder)
    assert [shard.name for shard in found.shards] == sorted(
        files(folder), key=lambda name: (name.startswith("val"), name)
    )
    for shard in found.shards:
        data = (folder / shard.name).read_bytes()
        assert len(data) == 2 * shard.tokens
        assert shard.tokens <= 2500
        assert shards.is_intact(folder, shard)
    assert sum(shard.tokens for shard in found.of("train")) == len(TEXT) * 9 // 10


class Stopped(Exception):
    """As if the process were killed: nothing is cleaned up after it."""


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Prepares until some jobs were encoded."""

    def kill(folder: Path, jobs: int) -> None:
        real, done = CharTokenizer.encode_job, []

        def encode(self: CharTokenizer, job: Job) -> Any:
            done.append(job)
            if len(done) > jobs:
                raise Stopped
            return real(self, job)

        with monkeypatch.context() as patch:
            patch.setattr(CharTokenizer, "encode_job", encode)
            with pytest.raises(Stopped):
                prepare(folder)

    return kill


@pytest.mark.parametrize("jobs", [0, 7, 16, 19])
def test_an_interrupted_preparation_goes_on_with_the_shards_it_has(
    tmp_path: Path, killed: Any, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    whole = files(prepare(tmp_path / "whole").folder)
    killed(tmp_path, jobs)
    (left,) = (tmp_path / "data" / "tale").glob(".*.part")
    before = files(left)
    kept = {shard.name for shard in read_manifest(left, whole=False).shards}
    with (left / MANIFEST).open("ab") as file:
        file.write(b'{"split": "tr')  # a line that was cut short
    encoded, real = [], CharTokenizer.encode_job

    def counted(self: CharTokenizer, job: Job) -> Any:
        encoded.append(job)
        return real(self, job)

    monkeypatch.setattr(CharTokenizer, "encode_job", counted)
    dataset = prepare(tmp_path)
    assert files(dataset.folder) == whole
    assert all(whole[name] == before[name] for name in kept)
    done = sum(shard.jobs for shard in read_manifest(dataset.folder).shards if shard.name in kept)
    assert len(encoded) == sum(s.jobs for s in read_manifest(dataset.folder).shards) - done
    assert bool(kept) == (jobs > 2)
    assert list((tmp_path / "data" / "tale").glob(".*.part")) == []


def test_a_shard_that_was_damaged_meanwhile_is_written_again(tmp_path: Path, killed: Any) -> None:
    killed(tmp_path, 16)
    (left,) = (tmp_path / "data" / "tale").glob(".*.part")
    path = left / "train-00001.bin"
    path.write_bytes(bytes(path.stat().st_size))
    assert prepare(tmp_path).tokenizer.decode(prepare(tmp_path).tokens("all")) == TEXT


@pytest.mark.parametrize("damage", ["gone", "altered", "signed", "manifest"])
def test_a_missing_or_altered_shard_is_noticed_and_written_again(
    tmp_path: Path, damage: str
) -> None:
    dataset = prepare(tmp_path)
    whole, path = files(dataset.folder), dataset.folder / "train-00001.bin"
    if damage == "gone":
        path.unlink()
    else:
        ids = np.fromfile(path, np.uint16)
        ids[5] = 60_000
        ids.tofile(path)
    if damage in ("signed", "manifest"):  # by a program that knows how
        lines = (dataset.folder / MANIFEST).read_text().splitlines()
        shard = json.loads(lines[2])
        shard["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        lines[2] = json.dumps(shard)
        (dataset.folder / MANIFEST).write_text("\n".join(lines) + "\n")
        if damage == "signed":
            metadata = json.loads((dataset.folder / "facts.json").read_text())
            metadata["sha256"] = hashlib.sha256(
                (dataset.folder / MANIFEST).read_bytes()
            ).hexdigest()
            (dataset.folder / "facts.json").write_text(json.dumps(metadata))
    with pytest.raises(CorpusError) as caught:  # where the text is gone, and only this is left
        find_prepared(tmp_path / "data", dataset.metadata.fingerprint)
    reasons = {
        "gone": "train-00001.bin is missing",
        "altered": "train-00001.bin has been changed",
        "signed": "train-00001.bin has ids beyond the vocabulary",
        "manifest": "facts.json or shards.jsonl cannot be read",
    }
    assert f"damaged ({reasons[damage]}); restore" in str(caught.value)
    assert "\n" not in str(caught.value)
    again = prepare(tmp_path)
    assert files(again.folder) == whole
    assert again.tokens("train").max() < 100


def test_a_layout_that_does_not_add_up_is_refused(tmp_path: Path) -> None:
    folder = prepare(tmp_path).folder
    metadata = read_metadata(folder)
    for change in (b"", b"{}\n", (folder / MANIFEST).read_bytes() + b"x"):
        kept = (folder / MANIFEST).read_bytes()
        (folder / MANIFEST).write_bytes(change)
        with pytest.raises(ValueError, match="has been changed"):
            layout_of(folder, metadata)
        with pytest.raises(ValueError, match=r".+"):
            read_manifest(folder)
        (folder / MANIFEST).write_bytes(kept)


# One array of several files


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> ShardedTokens:
    folder, counts = tmp_path_factory.mktemp("tokens"), (7, 0, 1, 30, 12)
    ids = np.arange(50, dtype=np.uint16)
    starts = np.cumsum([0, *counts])
    for number, count in enumerate(counts):
        ids[starts[number] :][:count].tofile(folder / f"{number}.bin")
    named = [(folder / f"{number}.bin", count) for number, count in enumerate(counts)]
    return ShardedTokens(named, "uint16")


@given(first=st.integers(-60, 60), last=st.integers(-60, 60), step=st.sampled_from([1, 2, -1]))
def test_slices_are_those_of_an_array(
    halves: ShardedTokens, first: int, last: int, step: int
) -> None:
    assert halves[first:last:step].tolist() == np.arange(50)[first:last:step].tolist()


@given(places=st.lists(st.lists(st.integers(-50, 49), min_size=3, max_size=3), max_size=5))
def test_places_give_an_array_of_their_shape(
    halves: ShardedTokens, places: list[list[int]]
) -> None:
    wanted = np.array(places, dtype=np.int64).reshape(-1, 3)
    assert halves[wanted].tolist() == np.arange(50)[wanted].tolist()
    assert halves[wanted].shape == wanted.shape


def test_single_places_and_places_beyond_the_end(halves: ShardedTokens) -> None:
    assert [int(halves[place]) for place in (0, 7, 49, -1)] == [0, 7, 49, 49]
    for place in (50, -51):
        with pytest.raises(IndexError, match="beyond the 50 tokens"):
            halves[place]
    assert len(ShardedTokens([], "uint16")) == 0
    assert ShardedTokens([], "uint16").tolist() == []


# Other processes


@pytest.fixture(scope="module")
def bpe() -> BPETokenizer:
    return BPETokenizer.train([TEXT], 400, end_of_text=True)


def jobs(tokenizer: BPETokenizer) -> list[Job]:
    pieces = [TEXT[start : start + 3000] for start in range(0, len(TEXT), 3000)]
    documents = (Job((text, "", "天\ud800"), ended=True) for text in pieces)
    return [*tokenizer.jobs(pieces), Job((), ended=True), *documents]


def test_processes_encode_as_this_one_does_and_in_order(bpe: BPETokenizer) -> None:
    pool = Encoders(bpe, 2)
    try:
        found = [ids.tolist() for ids in pool.encode(jobs(bpe))]
    finally:
        pool.close()
    assert found == [bpe.encode_job(job).tolist() for job in jobs(bpe)]
    assert [process.returncode is not None for process in pool._processes] == [True, True]


def test_a_process_that_is_killed_is_reported_in_one_line(bpe: BPETokenizer) -> None:
    pool = Encoders(bpe, 1)
    try:
        found = pool.encode(iter(jobs(bpe)))
        next(found)
        pool._processes[0].kill()
        with pytest.raises(CorpusError, match=r"a process that tokenizes has ended .*run the comm"):
            list(found)
    finally:
        pool.close()


def test_what_a_process_cannot_encode_is_raised_here() -> None:
    pool = Encoders(CharTokenizer("ab"), 1)
    try:
        with pytest.raises(TokenizerError, match=r"'Ω' \(U\+03A9\)"):
            list(pool.encode([Job(("abΩ",), ended=False), Job(("ab",), ended=False)]))
    finally:
        pool.close()


@pytest.mark.skipif(os.name != "posix", reason="needs kill -9")
def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    program = """
import os, sys
from minigpt_cli.data.tokens.encoders import Encoders
from minigpt_cli.tokenizer.base import Job
from minigpt_cli.tokenizer.byte import ByteTokenizer
pool = Encoders(ByteTokenizer(), 1)
print(pool._processes[0].pid, len(list(pool.encode([Job(("x",), False)]))), flush=True)
os.kill(os.getpid(), 9)
"""
    root = Path(encoders.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    process, encoded = map(int, done.stdout.split())
    assert encoded == 1
    for _ in range(500):
        if not is_running(process):
            return
        subprocess.run([sys.executable, "-c", "import time; time.sleep(0.02)"])
    raise AssertionError("it is still there")


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_processes_are_started_where_they_pay(
    bpe: BPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    class Fake:
        def __init__(self, tokenizer: object, count: int) -> None:
            started.append(count)

        def encode(self, jobs: Iterator[Job]) -> Iterator[Any]:
            return iter(())

        def close(self) -> None:
            started.append(-1)

    monkeypatch.setattr(encoders, "Encoders", Fake)
    monkeypatch.setattr(encoders, "usable_cores", lambda: 8)
    for tokenizer, size in ((bpe, 1000), (CharTokenizer("a"), 10**10), (bpe, 10**9)):
        with encoding(tokenizer, size):
            pass
    assert started == [8, -1]
    monkeypatch.setattr(encoders, "usable_cores", lambda: 1)
    with encoding(bpe, 10**9):
        pass
    assert started == [8, -1]
