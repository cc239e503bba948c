"""One pass over a text: its fingerprint, its characters, and where the validation part begins."""

import hashlib
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from minigpt_cli.data.corpus import Corpus
from minigpt_cli.data.progress import Progress, no_progress


@dataclass(frozen=True)
class Reading:
    """The result of one pass over a text."""

    corpus: Corpus
    sha256: str
    """Digest of the text as it was read, in UTF-8."""
    bytes: int
    """Size of the text in UTF-8."""
    file_characters: tuple[int, ...]
    """Characters of each file, with the line break that keeps it apart from the next."""
    alphabet: str
    """Every character of the text, sorted."""
    validation: "Reading | None" = None
    """A text of its own for validation, instead of the end of this one."""

    @property
    def texts(self) -> "list[Reading]":
        """This text and, if it has its own, the one for validation."""
        return [self] if self.validation is None else [self, self.validation]

    @property
    def characters(self) -> int:
        return sum(self.file_characters)

    def training_characters(self, val_fraction: float) -> int:
        """How many characters, from the beginning, are for training."""
        if self.validation is not None:
            return self.characters
        return training_characters(self.characters, val_fraction)

    def validation_start(self, val_fraction: float) -> tuple[int, int]:
        """The file in which the validation part begins, and the character of it, both from 0."""
        left = self.training_characters(val_fraction)
        for index, characters in enumerate(self.file_characters):
            if left < characters:
                return index, left
            left -= characters
        return len(self.file_characters), 0


def read_corpus(corpus: Corpus, progress: Progress = no_progress) -> Reading:
    """Reads a text once.

    Raises:
        CorpusError: a file cannot be read, or is not in its encoding.
    """
    size, counts, alphabet = 0, [0] * len(corpus.files), _Alphabet()
    with TextDigest() as digest:
        for index, chunk in corpus.chunks_by_file(progress):
            data = to_utf8(chunk)
            digest.update(data)
            size += len(data)
            counts[index] += len(chunk)
            alphabet.add(chunk, data)
        return Reading(corpus, digest.hexdigest(), size, tuple(counts), str(alphabet))


class TextDigest:
    """The sha256 of a text, computed beside the reading of its next piece."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def update(self, data: bytes) -> None:
        """Adds a piece of the text, in UTF-8."""
        self._wait()
        self._pending = self._thread.submit(self._digest.update, data)

    def hexdigest(self) -> str:
        """The digest of all pieces so far."""
        self._wait()
        return self._digest.hexdigest()

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()


class _Alphabet:
    """The characters of a text, most of whose pieces have no new one."""

    def __init__(self) -> None:
        self._seen: NDArray[np.bool_] = np.zeros(sys.maxunicode + 1, dtype=np.bool_)
        self._ascii = b""

    def add(self, chunk: str, data: bytes) -> None:
        """Adds a piece of text, given also in UTF-8."""
        if chunk.isascii():
            new = set(data.translate(None, delete=self._ascii))
            if new:
                self._ascii += bytes(new)
                self._seen[[*new]] = True
        else:
            points = chunk.encode("utf-32-le", "surrogatepass")
            self._seen[np.frombuffer(points, dtype=np.uint32)] = True

    def __str__(self) -> str:
        return "".join(map(chr, np.flatnonzero(self._seen).tolist()))


def to_utf8(chunk: str) -> bytes:
    """A piece of text as it is hashed."""
    return chunk.encode("utf-8", "surrogatepass")


def training_characters(characters: int, val_fraction: float) -> int:
    """The training part of a number of characters."""
    return int(characters * (1 - val_fraction))


class Halves:
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
