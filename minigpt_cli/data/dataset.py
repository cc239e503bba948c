"""Token ids on disk, memory-mapped.

A prepared dataset is a folder named after its fingerprint (text, tokenizer settings, split), so it
is never out of date.
"""

import hashlib
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from filelock import FileLock, Timeout
from pydantic import ConfigDict, Field, TypeAdapter

from minigpt_cli.config.choices import Split, TokenizerKind
from minigpt_cli.config.schema import DataConfig
from minigpt_cli.data.corpus import Corpus, Piece, encoded
from minigpt_cli.data.progress import Progress, no_progress
from minigpt_cli.data.reading import MOST_VALIDATION, Halves, Reading, marked, read_corpus
from minigpt_cli.data.token_files import Tokens, mapped_together, narrowest, write_split
from minigpt_cli.data.vocabulary import tokenizer_for
from minigpt_cli.errors import CorpusError, TokenizerError, reraise_as
from minigpt_cli.io.locking import take
from minigpt_cli.io.permissions import enterable, restrict
from minigpt_cli.io.regular import NotRegularError, open_regular, read_bounded
from minigpt_cli.io.strict_json import read_json
from minigpt_cli.tokenizer.base import SPLITTINGS, Tokenizer
from minigpt_cli.tokenizer.factory import check_settings, tokenizer_from_json

FORMAT = 1
_METADATA, _TOKENIZER = "facts.json", "tokenizer.json"
_MOST_METADATA, _MOST_TOKENIZER = 1 << 16, 1 << 28


class TextChangedError(CorpusError):
    """A text is not the one that a model was trained on."""


_Count = Annotated[int, Field(ge=0)]
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class DatasetMetadata:
    """What is known about a prepared dataset."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    corpus: str
    fingerprint: str
    kind: TokenizerKind
    vocab_size: Annotated[int, Field(gt=0)]
    dtype: Literal["uint16", "uint32"]
    text_bytes: _Count
    characters: _Count
    train_tokens: _Count
    val_tokens: _Count
    sha256: _Digest
    """Digest of the token ids of both splits on disk."""
    tokenizer_sha256: _Digest
    """Digest of `tokenizer.json`."""
    seconds: Annotated[float, Field(ge=0)]
    """How long preparing took, when it was first prepared."""

    @property
    def tokens(self) -> int:
        return self.train_tokens + self.val_tokens


_SCHEMA = TypeAdapter(DatasetMetadata)


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset: the token ids of two splits, and the tokenizer that made them."""

    folder: Path
    metadata: DatasetMetadata
    tokenizer: Tokenizer
    reading: Reading
    """The text that it was prepared from, read just now; without files if it was not at hand."""

    def tokens(self, split: Split) -> Tokens:
        """The token ids of one split, mapped from disk, or of the whole text.

        Raises:
            CorpusError: the disk cannot hold a copy of the whole text.
        """
        if split == "all":
            halves = (self.tokens("train"), self.tokens("val"))
            return mapped_together(iter(halves), self.metadata.dtype)
        path = self.folder / f"{split}.bin"
        if path.stat().st_size == 0:
            return np.empty(0, dtype=np.uint16)
        mapped: Tokens = np.memmap(path, dtype=self.metadata.dtype, mode="r")
        return mapped


def prepare_dataset(
    corpus: Corpus,
    config: DataConfig,
    data_dir: Path,
    progress: Progress = no_progress,
    expected: str | None = None,
    tokenizer: Tokenizer | None = None,
    validation: Corpus | None = None,
) -> Dataset:
    """Tokenizes a corpus, finds it already prepared, or waits while another process prepares it.

    With a `validation` text of its own, all of the corpus is for training. Otherwise the first
    `1 - val_fraction` of the characters are for training, the rest for validation. The
    `char` and `word` vocabularies cover the whole text, as in the guide (but a word that the split
    cuts in two is `<unk>` on both sides); `bpe` learns its merges from the training part.

    Args:
        corpus: the text.
        config: how to cut and split it.
        data_dir: where prepared texts are kept.
        progress: called with the stages of the work.
        validation: a text to validate on, instead of the end of the corpus.
        expected: the only fingerprint that is wanted; for another text nothing is written.
        tokenizer: the one that came with the model, if `config.tokenizer_sha256` names one.

    Raises:
        TextChangedError: the text is not the expected one.
        CorpusError: the text is empty, cannot be read, or changes while it
            is read, or the disk cannot hold the result.
        TokenizerError: the tokenizer's settings are impossible.
    """
    if config.tokenizer_sha256 is None:
        check_settings(config.tokenizer, config.vocab_size, corpus.has_documents)
    reading = _read(corpus, validation, progress)
    fingerprints = [_fingerprint(reading, config, splitting) for splitting in SPLITTINGS]
    fingerprint = expected or fingerprints[0]
    if fingerprint not in fingerprints:
        raise TextChangedError(
            f"{corpus.name}: the text has changed since the model was trained on it; "
            "restore the original text, or train a new model"
        )
    folder = data_dir / corpus.name / fingerprint
    hint = "free some space or choose another data folder"
    with reraise_as(CorpusError, folder, "written", hint=hint, settings=("data_dir",)):
        found = _open_whole(folder, reading, config)  # before locking: it may be read-only
        if found is None:
            with _locked(folder, progress):
                found = _open_whole(folder, reading, config)
                if found is None:
                    splitting = SPLITTINGS[fingerprints.index(fingerprint)]
                    tokenizer = tokenizer_for(reading, config, splitting, tokenizer, progress)
                    _prepare(reading, config, tokenizer, folder, progress)
                    found = _open_whole(folder, reading, config)
    assert found is not None
    return found


def _read(corpus: Corpus, validation: Corpus | None, progress: Progress) -> Reading:
    """Reads a text, and the one to validate on if it is separate."""
    reading = read_corpus(corpus, progress)
    if validation is not None:
        reading = replace(reading, validation=read_corpus(validation, progress))
    if reading.characters < 2:
        raise CorpusError(
            f"{', '.join(str(file.path) for file in corpus.files)}: the text has "
            f"{reading.characters} characters and needs at least 2; use a longer text"
        )
    return reading


def find_prepared(data_dir: Path, fingerprint: str) -> Dataset | None:
    """A text that was prepared earlier, by its fingerprint alone; None if it is not there."""
    for folder in sorted(data_dir.glob(f"*/{fingerprint}")):
        if (found := _open_whole(folder, None, None)) is not None:
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


def _open_whole(folder: Path, reading: Reading | None, config: DataConfig | None) -> Dataset | None:
    """Opens a prepared folder; None if it is not there, or not exactly what would be written."""
    try:
        stored = read_bounded(folder / _METADATA, _MOST_METADATA).decode()
        read_json(stored)  # refuses what readers of JSON disagree about
        metadata = _SCHEMA.validate_json(stored)
        saved = read_bounded(folder / _TOKENIZER, _MOST_TOKENIZER)
        if hashlib.sha256(saved).hexdigest() != metadata.tokenizer_sha256:
            return None
        tokenizer = tokenizer_from_json(saved.decode())
        if reading is None or config is None:  # without its text, by its fingerprint alone
            if (metadata.fingerprint, metadata.vocab_size, metadata.dtype) != (
                folder.name, tokenizer.vocab_size, narrowest(tokenizer)
            ):  # fmt: skip
                return None
        elif _identity(metadata) != _expected_identity(folder, reading, config, tokenizer):
            return None
        width = np.dtype(metadata.dtype).itemsize
        sizes = [(folder / f"{name}.bin").stat().st_size for name in ("train", "val")]
        if sizes != [metadata.train_tokens * width, metadata.val_tokens * width]:
            return None
        if _digest(folder) != metadata.sha256:
            return None
    except (FileNotFoundError, NotRegularError, IsADirectoryError, ValueError, TokenizerError):
        return None
    if reading is not None:
        _restrict(folder, reading.corpus.permissions)
    else:
        corpus = Corpus(metadata.corpus, ())
        reading = Reading(corpus, "", metadata.text_bytes, (metadata.characters,), "")
    dataset = Dataset(folder, metadata, tokenizer, reading)
    splits = (dataset.tokens("train"), dataset.tokens("val"))
    return (
        dataset if all(int(ids.max(initial=0)) < tokenizer.vocab_size for ids in splits) else None
    )


def _identity(metadata: DatasetMetadata) -> tuple[object, ...]:
    """What the text and the settings alone say of a dataset."""
    return (
        metadata.corpus, metadata.fingerprint, metadata.kind, metadata.vocab_size, metadata.dtype,
        metadata.text_bytes, metadata.characters,
    )  # fmt: skip


def _expected_identity(
    folder: Path, reading: Reading, config: DataConfig, tokenizer: Tokenizer
) -> tuple[object, ...]:
    return (
        reading.corpus.name, folder.name, config.tokenizer, tokenizer.vocab_size,
        narrowest(tokenizer), reading.bytes, reading.characters,
    )  # fmt: skip


def _restrict(folder: Path, permissions: int) -> None:
    """Takes from a prepared folder the permissions that its text does not give."""
    restrict(folder, enterable(permissions))
    for name in (_METADATA, _TOKENIZER, "train.bin", "val.bin"):
        restrict(folder / name, permissions)


def encode_corpus(
    corpus: Corpus, tokenizer: Tokenizer, split: Split, val_fraction: float
) -> Tokens:
    """Tokenizes one split of any text with an existing tokenizer, without keeping the result.

    Raises:
        CorpusError: the text cannot be read, or the disk cannot hold its tokens.
        TokenizerError: the text has characters that are not in the vocabulary.
    """
    pieces = corpus.pieces()
    if split != "all":
        halves = Halves(pieces, read_corpus(corpus).training_characters(val_fraction))
        pieces = halves.first()
        if split == "val":
            deque(pieces, maxlen=0)  # read past the training part
            pieces = halves.second()
    return mapped_together(encoded(pieces, tokenizer), narrowest(tokenizer))


def _fingerprint(reading: Reading, config: DataConfig, splitting: int) -> str:
    parts = [FORMAT, reading.sha256, config.tokenizer, config.vocab_size, config.val_fraction]
    if splitting > 1 and config.tokenizer in ("word", "bpe"):
        parts.append(splitting)
    if reading.validation is not None:
        parts.append(f"validation {reading.validation.sha256}")
    if config.tokenizer_sha256 is not None:
        parts.append(config.tokenizer_sha256)
    if reading.documents:
        parts.append(f"documents, validation up to {MOST_VALIDATION}")
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _prepare(
    reading: Reading, config: DataConfig, tokenizer: Tokenizer, folder: Path, progress: Progress
) -> None:
    """Writes the folder under another name and renames it, so that it is never incomplete."""
    started = time.perf_counter()
    corpus, split = reading.corpus, reading.training_characters(config.val_fraction)
    dtype = narrowest(tokenizer)
    temporary = folder.with_name(f".{folder.name}.part")
    for left in (temporary, folder):  # left by a killed process, or damaged
        shutil.rmtree(left, ignore_errors=True)
    temporary.mkdir()
    try:
        temporary.chmod(0o700)  # until its files have the permissions of the text
        counts = write_splits(temporary, reading, split, tokenizer, dtype, progress)
        saved = tokenizer.to_json()
        metadata = DatasetMetadata(
            corpus=corpus.name,
            fingerprint=folder.name,
            kind=config.tokenizer,
            vocab_size=tokenizer.vocab_size,
            dtype=dtype,
            text_bytes=reading.bytes,
            characters=reading.characters,
            train_tokens=counts[0],
            val_tokens=counts[1],
            sha256=_digest(temporary),
            tokenizer_sha256=hashlib.sha256(saved.encode()).hexdigest(),
            seconds=time.perf_counter() - started,
        )
        _write_text(temporary / _TOKENIZER, saved)
        _write_text(temporary / _METADATA, json.dumps(asdict(metadata)))
        _restrict(temporary, corpus.permissions)
        parent = temporary.parent.stat().st_mode & 0o777
        temporary.chmod(parent & enterable(corpus.permissions) | 0o700)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_splits(
    folder: Path,
    reading: Reading,
    split: int,
    tokenizer: Tokenizer,
    dtype: str,
    progress: Progress,
) -> list[int]:
    """Writes the tokens of both splits, and counts them.

    Raises:
        CorpusError: the text is not the one that was read before.
    """
    digests = [hashlib.sha256() for _ in reading.texts]

    def hashed(pieces: Iterator[Piece], digest: "hashlib._Hash") -> Iterator[Piece]:
        for piece in pieces:
            digest.update(marked(piece))
            yield piece

    changed = CorpusError(
        f"{reading.corpus.name}: the text changed while it was read; run the command again"
    )
    pieces = [
        hashed(text.corpus.pieces(progress, "Tokenizing"), digest)
        for text, digest in zip(reading.texts, digests, strict=True)
    ]
    halves = Halves(pieces[0], split)

    def second() -> Iterator[Piece]:
        yield from halves.second()  # nothing, beside a validation text of its own
        yield from chain.from_iterable(pieces[1:])

    try:
        counts = [
            write_split(folder / f"{name}.bin", encoded(half, tokenizer), dtype)
            for name, half in (("train", halves.first()), ("val", second()))
        ]
    except TokenizerError:  # a character that was not there before
        raise changed from None
    if [digest.hexdigest() for digest in digests] != [text.sha256 for text in reading.texts]:
        raise changed
    return counts


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in ("train", "val"):
        with open_regular(folder / f"{name}.bin") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
