"""Writes a prepared dataset: token ids of both splits, the tokenizer, and what is known of them."""

import hashlib
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import Any, Literal

import tokenizers

from minigpt_cli import __version__
from minigpt_cli.config.schema import DataConfig
from minigpt_cli.data.corpora.corpus import Piece, jobs_of
from minigpt_cli.data.corpora.known_texts import KnownText
from minigpt_cli.data.metadata import (
    METADATA,
    TOKENIZER,
    DatasetMetadata,
    digest_of,
    read_metadata,
    restrict_all,
    stored_tokenizer,
)
from minigpt_cli.data.progress import Progress
from minigpt_cli.data.reading import Halves, Reading, TextDigest, marked
from minigpt_cli.data.records import RECORD, Record, settled_stamps, to_json
from minigpt_cli.data.tokens import shards
from minigpt_cli.data.tokens.encoders import Encode, encoding
from minigpt_cli.data.tokens.layout import SPLITS
from minigpt_cli.data.tokens.shards import (
    MANIFEST,
    Maker,
    Manifest,
    Shard,
    ShardWriter,
    is_intact,
    read_manifest,
    write_manifest,
)
from minigpt_cli.data.tokens.token_files import holds_ids_below, narrowest, write_split
from minigpt_cli.errors import CorpusError, TokenizerError
from minigpt_cli.io.memory import keep_freed_memory
from minigpt_cli.io.permissions import enterable
from minigpt_cli.language import _, mark
from minigpt_cli.tokenizer.base import Job, Tokenizer
from minigpt_cli.tokenizer.factory import tokenizer_from_json


class ChangedWhileReadError(CorpusError):
    """A text is not the one that was read before it was tokenized."""


@dataclass(frozen=True)
class _Written:
    """Files of tokens that are safely on the disk."""

    train_tokens: int
    val_tokens: int
    sha256: str
    names: tuple[str, ...]


def begun(folder: Path) -> Tokenizer | None:
    """The tokenizer of a dataset in shards whose preparation was interrupted, or that is damaged.

    `write_dataset` goes on after the shards that are whole.
    """
    temporary = _temporary(folder)
    with suppress(OSError, ValueError):  # a shard of it may be damaged, the others are kept
        if digest_of(folder, [MANIFEST]) == read_metadata(folder).sha256:
            folder.rename(temporary)
    with suppress(OSError, ValueError, TokenizerError):
        saved = stored_tokenizer(temporary).decode()
        tokenizer = tokenizer_from_json(saved)
        if read_manifest(temporary, whole=False).maker == _maker(saved):
            return tokenizer
    return None


def write_dataset(
    text: KnownText, config: DataConfig, tokenizer: Tokenizer, folder: Path, progress: Progress
) -> None:
    """Writes the folder under another name and renames it, so that it is never incomplete.

    Shards are kept under the other name when this is interrupted.

    Raises:
        ChangedWhileReadError: the text is not the one that was read before.
        OSError: the disk refuses.
    """
    keep_freed_memory()
    started = time.perf_counter()
    reading, permissions = text.reading, text.reading.corpus.permissions
    in_shards = sum(each.bytes for each in reading.texts) > shards.WHOLE_BYTES
    temporary = _temporary(folder)
    if not in_shards:
        shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process
    shutil.rmtree(folder, ignore_errors=True)  # damaged
    temporary.mkdir(exist_ok=in_shards)
    try:
        temporary.chmod(0o700)  # until its files have the permissions of the text
        saved = tokenizer.to_json()
        split = reading.training_characters(config.val_fraction)
        writing = _Writing(temporary, reading, split, tokenizer, saved, progress)
        written = writing.shards() if in_shards else writing.whole_files()
        _write_text(temporary / TOKENIZER, saved)
        restrict_all(temporary, permissions)  # before the record: it changes a file's status
        metadata = DatasetMetadata(
            corpus=reading.corpus.name,
            fingerprint=folder.name,
            kind=config.tokenizer,
            vocab_size=tokenizer.vocab_size,
            dtype=narrowest(tokenizer),
            text_bytes=reading.bytes,
            characters=reading.characters,
            train_tokens=written.train_tokens,
            val_tokens=written.val_tokens,
            sha256=written.sha256,
            tokenizer_sha256=hashlib.sha256(saved.encode()).hexdigest(),
            seconds=time.perf_counter() - started,
        )
        _write_text(temporary / METADATA, json.dumps(asdict(metadata)))
        record = text.added_to(Record(prepared=settled_stamps(temporary, written.names)))
        _write_text(temporary / RECORD, to_json(record))
        restrict_all(temporary, permissions)
        parent = temporary.parent.stat().st_mode & 0o777
        temporary.chmod(parent & enterable(permissions) | 0o700)
        temporary.rename(folder)
    except ChangedWhileReadError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        if not (in_shards and (temporary / MANIFEST).exists()):
            shutil.rmtree(temporary, ignore_errors=True)


def _temporary(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.part")


def _maker(saved_tokenizer: str) -> Maker:
    digest = hashlib.sha256(saved_tokenizer.encode()).hexdigest()
    return Maker(__version__, tokenizers.__version__, digest, shards.SHARD_TOKENS)


@dataclass(frozen=True)
class _Writing:
    """The tokens of a text on their way to a folder."""

    folder: Path
    reading: Reading
    split: int
    """Characters of the training part."""
    tokenizer: Tokenizer
    saved: str
    """The tokenizer as JSON."""
    progress: Progress

    def whole_files(self) -> _Written:
        """Writes a file for each split."""
        dtype, counts = narrowest(self.tokenizer), []

        def write(split: str, jobs: Iterator[Job], encode: Encode) -> None:
            counts.append(write_split(self.folder / f"{split}.bin", encode(jobs), dtype))

        self._for_both_splits(write)
        names = tuple(f"{split}.bin" for split in SPLITS)
        return _Written(counts[0], counts[1], digest_of(self.folder, names), names)

    def shards(self) -> _Written:
        """Writes shards, after those that are there already."""
        maker = _maker(self.saved)
        there = self._intact_shards(maker)
        if not there.shards:
            _write_text(self.folder / TOKENIZER, self.saved)
        write_manifest(self.folder, there)

        def write(split: Literal["train", "val"], jobs: Iterator[Job], encode: Encode) -> None:
            known = there.of(split)
            deque(islice(jobs, sum(shard.jobs for shard in known)), maxlen=0)
            writer = ShardWriter(self.folder, split, maker, len(known), narrowest(self.tokenizer))
            writer.write(encode(jobs))

        self._for_both_splits(write)
        manifest = read_manifest(self.folder)
        counts = [sum(shard.tokens for shard in manifest.of(split)) for split in SPLITS]
        names = tuple(shard.name for shard in manifest.shards)
        return _Written(counts[0], counts[1], digest_of(self.folder, [MANIFEST]), names)

    def _intact_shards(self, maker: Maker) -> Manifest:
        """What an interrupted preparation left, up to the first shard that is not whole."""
        found = Manifest(maker, ())
        with suppress(OSError, ValueError):
            left = read_manifest(self.folder, whole=False)
            if left.maker == maker:
                intact = takewhile(self._is_intact, left.shards)
                found = Manifest(maker, tuple(intact))
        kept = {TOKENIZER, *(shard.name for shard in found.shards)}
        for path in self.folder.iterdir():
            if path.name not in kept:
                path.unlink()
        return found

    def _is_intact(self, shard: Shard) -> bool:
        if not is_intact(self.folder, shard):
            return False
        return holds_ids_below(
            self.folder / shard.name, narrowest(self.tokenizer), self.tokenizer.vocab_size
        )

    def _for_both_splits(self, write: Callable[[Any, Iterator[Job], Encode], None]) -> None:
        """Encodes both splits.

        Raises:
            ChangedWhileReadError: the text is not the one that was read before.
        """
        reading, size = self.reading, sum(text.bytes for text in self.reading.texts)
        with encoding(self.tokenizer, size) as encode:
            try:
                for split, pieces in _both_splits(reading, self.split, self.progress):
                    write(split, jobs_of(pieces, self.tokenizer), encode)
            except TokenizerError:  # a character that was not there before
                raise _changed(reading) from None


def _both_splits(
    reading: Reading, split: int, progress: Progress
) -> Iterator[tuple[Literal["train", "val"], Iterator[Piece]]]:
    """The text of the training part, then of the validation part: each must be read to its end.

    Raises:
        ChangedWhileReadError: the text is not the one that was read before.
    """
    digests: list[str] = []

    def hashed(pieces: Iterator[Piece]) -> Iterator[Piece]:
        with TextDigest() as digest:
            for piece in pieces:
                digest.update(marked(piece))
                yield piece
            digests.append(digest.hexdigest())

    pieces = [hashed(text.corpus.pieces(progress, mark("Tokenizing"))) for text in reading.texts]
    halves = Halves(pieces[0], split)

    def second() -> Iterator[Piece]:
        yield from halves.second()  # nothing, beside a validation text of its own
        yield from chain.from_iterable(pieces[1:])

    yield "train", halves.first()
    yield "val", second()
    if digests != [text.sha256 for text in reading.texts]:
        raise _changed(reading)


def _changed(reading: Reading) -> ChangedWhileReadError:
    return ChangedWhileReadError(
        _("{name}: the text changed while it was read; run the command again").format(
            name=reading.corpus.name
        )
    )


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
