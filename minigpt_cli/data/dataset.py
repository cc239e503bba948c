"""Token ids on disk, memory-mapped.

A prepared dataset is a folder named after its fingerprint (text, tokenizer settings, split), so it
is never out of date.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from minigpt_cli.config.choices import Split
from minigpt_cli.config.schema import DataConfig
from minigpt_cli.data.corpus import Corpus
from minigpt_cli.data.progress import Progress, no_progress
from minigpt_cli.errors import CorpusError, TokenizerError, reraise_as
from minigpt_cli.io.locking import take
from minigpt_cli.tokenizer.base import Tokenizer
from minigpt_cli.tokenizer.factory import check_settings, tokenizer_from_json, train_tokenizer

FORMAT = 1
Tokens = NDArray[np.uint16] | NDArray[np.uint32]


@dataclass(frozen=True)
class DatasetMetadata:
    """What is known about a prepared dataset."""

    corpus: str
    fingerprint: str
    kind: str
    vocab_size: int
    dtype: str
    text_bytes: int
    characters: int
    train_tokens: int
    val_tokens: int
    sha256: str
    """Digest of the token ids of both splits on disk."""
    seconds: float
    """How long preparing took, when it was first prepared."""

    @property
    def tokens(self) -> int:
        return self.train_tokens + self.val_tokens


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset: the token ids of two splits, and the tokenizer that made them."""

    folder: Path
    metadata: DatasetMetadata
    tokenizer: Tokenizer

    def tokens(self, split: Split) -> Tokens:
        """The token ids of one split, mapped from disk, or of the whole text.

        Raises:
            CorpusError: the disk cannot hold a copy of the whole text.
        """
        if split == "all":
            halves = (self.tokens("train"), self.tokens("val"))
            return _mapped_together(iter(halves), self.metadata.dtype)
        path = self.folder / f"{split}.bin"
        if path.stat().st_size == 0:
            return np.empty(0, dtype=np.uint16)
        mapped: Tokens = np.memmap(path, dtype=self.metadata.dtype, mode="r")
        return mapped


@dataclass(frozen=True)
class _Scan:
    """The result of one pass over the text."""

    sha256: str
    characters: int
    bytes: int
    alphabet: str


@dataclass(frozen=True)
class _Texts:
    """What a dataset is made of."""

    corpus: Corpus
    scan: _Scan
    validation: Corpus | None
    """Of its own, instead of the corpus's end."""
    validation_scan: _Scan | None

    @property
    def scans(self) -> list[_Scan]:
        return [self.scan] if self.validation_scan is None else [self.scan, self.validation_scan]

    def chunks(self, progress: Progress, stage: str) -> Iterator[str]:
        """All of the text."""
        for corpus in (self.corpus, self.validation):
            if corpus is not None:
                yield from corpus.chunks(progress, stage)


def prepare_dataset(
    corpus: Corpus,
    config: DataConfig,
    data_dir: Path,
    progress: Progress = no_progress,
    validation: Corpus | None = None,
) -> Dataset:
    """Tokenizes a corpus, finds it already prepared, or waits while another process prepares it.

    With a `validation` text of its own, all of the corpus is for training. Otherwise the first
    `1 - val_fraction` of the characters are for training, the rest for validation. The
    `char` and `word` vocabularies cover the whole text, as in the guide (but a word that the split
    cuts in two is `<unk>` on both sides); `bpe` learns its merges from the training part.

    Raises:
        CorpusError: the text is empty, cannot be read, or the disk cannot hold the result.
        TokenizerError: the tokenizer's settings are impossible.
    """
    check_settings(config.tokenizer, config.vocab_size)
    scan = _scan(corpus, progress)
    texts = _Texts(corpus, scan, validation, _scan(validation, progress) if validation else None)
    if scan.characters < 2:
        raise CorpusError(
            f"{', '.join(map(str, corpus.files))}: the text has {scan.characters} characters and "
            "needs at least 2; use a longer text"
        )
    fingerprint = _fingerprint(texts, config)
    folder = data_dir / corpus.name / fingerprint
    hint = "free some space or choose another data folder"
    with reraise_as(CorpusError, folder, "written", hint=hint, settings=("data_dir",)):
        found = _open_whole(folder)  # before locking: the folder may be read-only
        if found is None:
            with _locked(folder, progress):
                found = _open_whole(folder)
                if found is None:
                    _prepare(texts, config, folder, progress)
                    found = _open_whole(folder)
    assert found is not None
    return found


def find_prepared(data_dir: Path, fingerprint: str) -> Dataset | None:
    """A text that was prepared earlier, by its fingerprint alone; None if it is not there."""
    for folder in sorted(data_dir.glob(f"*/{fingerprint}")):
        if (found := _open_whole(folder)) is not None and found.metadata.fingerprint == fingerprint:
            return found
    return None


@contextmanager
def _locked(folder: Path, progress: Progress) -> Iterator[None]:
    """Keeps other processes from preparing `folder`; a crash releases the lock."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        take(lock, blocking=False)
    except Timeout:
        progress("Waiting for another process", 0, 0)
        take(lock, blocking=True)
    try:
        yield
    finally:
        lock.release()


def _open_whole(folder: Path) -> Dataset | None:
    """Opens a prepared folder; None if it is missing or damaged."""
    try:
        metadata = DatasetMetadata(
            **json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        )
        tokenizer = tokenizer_from_json((folder / "tokenizer.json").read_text(encoding="utf-8"))
        width = np.dtype(metadata.dtype).itemsize
        sizes = [(folder / f"{name}.bin").stat().st_size for name in ("train", "val")]
    except (FileNotFoundError, ValueError, TypeError, TokenizerError):
        return None
    if sizes != [metadata.train_tokens * width, metadata.val_tokens * width]:
        return None
    if _digest(folder) != metadata.sha256:
        return None
    return Dataset(folder, metadata, tokenizer)


def encode_corpus(
    corpus: Corpus, tokenizer: Tokenizer, split: Split, val_fraction: float
) -> Tokens:
    """Tokenizes one split of any text with an existing tokenizer, without keeping the result.

    Raises:
        CorpusError: the text cannot be read, or the disk cannot hold its tokens.
        TokenizerError: the text has characters that are not in the vocabulary.
    """
    chunks = corpus.chunks()
    if split != "all":
        length = sum(len(chunk) for chunk in corpus.chunks())
        halves = _Halves(chunks, _training_characters(length, val_fraction))
        chunks = halves.first()
        if split == "val":
            deque(chunks, maxlen=0)  # read past the training part
            chunks = halves.second()
    return _mapped_together(tokenizer.encode_chunks(chunks), _narrowest(tokenizer))


def _mapped_together(arrays: Iterator[Tokens], dtype: str) -> Tokens:
    """Concatenates arrays in a temporary mapped file, so that they need not fit into memory."""
    hint = "free some space or set TMPDIR to another folder"
    with (
        reraise_as(CorpusError, tempfile.gettempdir(), "written", hint=hint),
        tempfile.TemporaryFile() as file,
    ):
        count = _write_tokens(file, arrays, dtype)
        if count == 0:
            return np.empty(0, dtype=np.uint16)
        mapped: Tokens = np.memmap(file, dtype=dtype, mode="r", shape=(count,))
        return mapped


def _scan(corpus: Corpus, progress: Progress) -> _Scan:
    digest, characters, size = hashlib.sha256(), 0, 0
    alphabet: set[str] = set()
    for chunk in corpus.chunks(progress):
        data = chunk.encode("utf-8", "surrogatepass")
        digest.update(data)
        size += len(data)
        characters += len(chunk)
        alphabet.update(chunk)
    return _Scan(digest.hexdigest(), characters, size, "".join(sorted(alphabet)))


def _fingerprint(texts: _Texts, config: DataConfig) -> str:
    parts = [FORMAT, texts.scan.sha256, config.tokenizer, config.vocab_size, config.val_fraction]
    if texts.validation_scan is not None:
        parts[-1] = texts.validation_scan.sha256
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _prepare(texts: _Texts, config: DataConfig, folder: Path, progress: Progress) -> None:
    """Writes the folder under another name and renames it, so that it is never incomplete."""
    started = time.perf_counter()
    corpus = texts.corpus
    own = texts.validation
    split = texts.scan.characters
    if own is None:
        split = _training_characters(split, config.val_fraction)
    training = _first(corpus.chunks(progress, "Learning tokens"), split)
    kind = config.tokenizer
    source: Iterable[str] = training
    if kind == "char":
        source = ["".join(scan.alphabet for scan in texts.scans)]
    elif kind == "word":
        source = texts.chunks(progress, "Learning tokens")
    tokenizer = train_tokenizer(kind, source, config.vocab_size)
    dtype = _narrowest(tokenizer)
    temporary = folder.with_name(f".{folder.name}.part")
    for left in (temporary, folder):  # left by a killed process, or damaged
        shutil.rmtree(left, ignore_errors=True)
    temporary.mkdir()
    try:
        chunks = corpus.chunks(progress, "Tokenizing")
        halves = _Halves(chunks, split)
        counts = [
            _write_split(temporary / f"{name}.bin", tokenizer.encode_chunks(half), dtype)
            for name, half in (
                ("train", halves.first()),
                ("val", own.chunks(progress, "Tokenizing validation") if own else halves.second()),
            )
        ]
        metadata = DatasetMetadata(
            corpus=corpus.name,
            fingerprint=folder.name,
            kind=kind,
            vocab_size=tokenizer.vocab_size,
            dtype=dtype,
            text_bytes=sum(scan.bytes for scan in texts.scans),
            characters=sum(scan.characters for scan in texts.scans),
            train_tokens=counts[0],
            val_tokens=counts[1],
            sha256=_digest(temporary),
            seconds=time.perf_counter() - started,
        )
        _write_text(temporary / "tokenizer.json", tokenizer.to_json())
        _write_text(temporary / "facts.json", json.dumps(asdict(metadata)))
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in ("train", "val"):
        with (folder / f"{name}.bin").open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def _training_characters(characters: int, val_fraction: float) -> int:
    return int(characters * (1 - val_fraction))


class _Halves:
    """A stream of text cut in two at a character, read in order."""

    def __init__(self, chunks: Iterator[str], split: int) -> None:
        self._chunks, self._split = chunks, split
        self._rest = ""

    def first(self) -> Iterator[str]:
        left = self._split
        for chunk in self._chunks:
            if len(chunk) >= left:
                self._rest = chunk[left:]
                yield chunk[:left]
                return
            left -= len(chunk)
            yield chunk

    def second(self) -> Iterator[str]:
        if self._rest:
            yield self._rest
        yield from self._chunks


def _first(chunks: Iterator[str], length: int) -> Iterator[str]:
    return _Halves(chunks, length).first()


def _narrowest(tokenizer: Tokenizer) -> str:
    """The dtype that holds every id."""
    return "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"


def _write_split(path: Path, arrays: Iterator[NDArray[np.uint32]], dtype: str) -> int:
    with path.open("wb") as file:
        count = _write_tokens(file, arrays, dtype)
        os.fsync(file.fileno())
    return count


def _write_tokens(file: BinaryIO, arrays: Iterator[Tokens], dtype: str) -> int:
    count = 0
    for array in arrays:
        file.write(array.astype(dtype, copy=False).data)
        count += array.size
    file.flush()
    return count


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
