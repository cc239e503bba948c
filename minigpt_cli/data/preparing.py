"""Writes a prepared dataset: token ids of both splits, the tokenizer, and what is known of them."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from minigpt_cli.config.schema import DataConfig
from minigpt_cli.data.corpus import Piece, encoded
from minigpt_cli.data.known_texts import KnownText
from minigpt_cli.data.metadata import METADATA, TOKENIZER, DatasetMetadata, restrict_all
from minigpt_cli.data.progress import Progress
from minigpt_cli.data.reading import Halves, Reading, TextDigest, marked
from minigpt_cli.data.records import RECORD, Record, to_json, verified
from minigpt_cli.data.token_files import TOKEN_FILES, narrowest, write_split
from minigpt_cli.errors import CorpusError, TokenizerError
from minigpt_cli.io.permissions import enterable
from minigpt_cli.tokenizer.base import Tokenizer


class ChangedWhileReadError(CorpusError):
    """A text is not the one that was read before it was tokenized."""


def write_dataset(
    text: KnownText, config: DataConfig, tokenizer: Tokenizer, folder: Path, progress: Progress
) -> None:
    """Writes the folder under another name and renames it, so that it is never incomplete.

    Raises:
        ChangedWhileReadError: the text is not the one that was read before.
        OSError: the disk refuses.
    """
    started = time.perf_counter()
    reading, permissions = text.reading, text.reading.corpus.permissions
    dtype = narrowest(tokenizer)
    temporary = folder.with_name(f".{folder.name}.part")
    for left in (temporary, folder):  # left by a killed process, or damaged
        shutil.rmtree(left, ignore_errors=True)
    temporary.mkdir()
    try:
        temporary.chmod(0o700)  # until its files have the permissions of the text
        split = reading.training_characters(config.val_fraction)
        counts = write_splits(temporary, reading, split, tokenizer, dtype, progress)
        saved = tokenizer.to_json()
        _write_text(temporary / TOKENIZER, saved)
        restrict_all(temporary, permissions)  # before the record: it changes a file's status
        found = verified(temporary, TOKEN_FILES)
        metadata = DatasetMetadata(
            corpus=reading.corpus.name,
            fingerprint=folder.name,
            kind=config.tokenizer,
            vocab_size=tokenizer.vocab_size,
            dtype=dtype,
            text_bytes=reading.bytes,
            characters=reading.characters,
            train_tokens=counts[0],
            val_tokens=counts[1],
            sha256=found.sha256,
            tokenizer_sha256=hashlib.sha256(saved.encode()).hexdigest(),
            seconds=time.perf_counter() - started,
        )
        _write_text(temporary / METADATA, json.dumps(asdict(metadata)))
        record = text.added_to(Record(prepared=found.stamps))
        _write_text(temporary / RECORD, to_json(record))
        restrict_all(temporary, permissions)
        parent = temporary.parent.stat().st_mode & 0o777
        temporary.chmod(parent & enterable(permissions) | 0o700)
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
        ChangedWhileReadError: the text is not the one that was read before.
    """
    digests: list[str] = []

    def hashed(pieces: Iterator[Piece]) -> Iterator[Piece]:
        with TextDigest() as digest:
            for piece in pieces:
                digest.update(marked(piece))
                yield piece
            digests.append(digest.hexdigest())

    changed = ChangedWhileReadError(
        f"{reading.corpus.name}: the text changed while it was read; run the command again"
    )
    pieces = [hashed(text.corpus.pieces(progress, "Tokenizing")) for text in reading.texts]
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
    if digests != [text.sha256 for text in reading.texts]:
        raise changed
    return counts


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
