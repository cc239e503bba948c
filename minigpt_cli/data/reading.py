"""One pass over a text: its fingerprint, its characters, and where the validation part begins."""

import hashlib
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from minigpt_cli.data.corpora.corpus import Corpus, Piece
from minigpt_cli.data.progress import Progress, no_progress
from minigpt_cli.tokenizer.char import code_points

MOST_VALIDATION = 40_000_000
"""Characters that are kept for validation of a text with documents: about 10 million BPE tokens."""
END_MARK = b"\xff"
"""Hashed where a document ends; no text has this byte."""
_MOST_ENDS = 1 << 16
_WORTH_A_THREAD = 1 << 18
"""Bytes that take longer to hash than to hand over."""


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
    documents: int = 0
    """Number of documents; 0 in a text without."""
    document_ends: tuple[int, ...] = ()
    """Where documents end, in characters from the beginning; evenly thinned out where many."""
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
        """How many characters, from the beginning, are for training.

        In a text with more than one document these are whole documents: the split is the end of a
        document, the nearest to the fraction or, of a large text, to the last `MOST_VALIDATION`.
        """
        if self.validation is not None:
            return self.characters
        wanted = int(self.characters * (1 - val_fraction))
        if not self.documents:
            return wanted
        wanted = max(wanted, self.characters - MOST_VALIDATION)
        within = [end for end in self.document_ends if end < self.characters]
        return min(within, key=lambda end: abs(end - wanted), default=wanted)

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
    size, characters, counts = 0, 0, [0] * len(corpus.files)
    alphabet, ends = _Alphabet(), _Ends()
    with TextDigest() as digest:
        for piece in corpus.pieces(progress):
            data = to_utf8(piece.text)
            digest.update(data)
            size += len(data)
            characters += len(piece.text)
            counts[piece.file] += len(piece.text)
            alphabet.add(piece.text, data)
            if piece.ends_document:
                digest.update(END_MARK)
                ends.add(characters)
        return Reading(
            corpus, digest.hexdigest(), size, tuple(counts), str(alphabet), ends.count,
            tuple(ends.places),
        )  # fmt: skip


class TextDigest:
    """The sha256 of a text, computed beside the reading of its next piece."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None
        self._small: list[bytes] = []
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def update(self, data: bytes) -> None:
        """Adds bytes of the text."""
        self._small.append(data)
        self._size += len(data)
        if self._size >= _WORTH_A_THREAD:
            self._wait()
            self._pending = self._thread.submit(self._digest.update, b"".join(self._small))
            self._small, self._size = [], 0

    def hexdigest(self) -> str:
        """The digest of all bytes so far."""
        self._wait()
        self._digest.update(b"".join(self._small))
        self._small, self._size = [], 0
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
            self._seen[code_points(chunk)] = True

    def __str__(self) -> str:
        return "".join(map(chr, np.flatnonzero(self._seen).tolist()))


class _Ends:
    """Where documents end: every one, or every second, fourth ... of very many."""

    def __init__(self) -> None:
        self.count, self._step = 0, 1
        self.places: list[int] = []

    def add(self, place: int) -> None:
        self.count += 1
        if self.count % self._step == 0:
            self.places.append(place)
            if len(self.places) > _MOST_ENDS:
                del self.places[::2]
                self._step *= 2


def to_utf8(chunk: str) -> bytes:
    """UTF-8, also of halves of characters."""
    return chunk.encode("utf-8", "surrogatepass")


def marked(piece: Piece) -> bytes:
    """A piece of text as it is hashed, with the mark of a document's end."""
    return to_utf8(piece.text) + END_MARK * piece.ends_document


class Halves:
    """A stream of text cut in two at a character, read in order."""

    def __init__(self, pieces: Iterator[Piece], split: int) -> None:
        self._pieces, self._split = pieces, split
        self._rest: Piece | None = None

    def first(self) -> Iterator[Piece]:
        left = self._split
        if not left:
            return
        for piece in self._pieces:
            if len(piece.text) > left:
                self._rest = piece._replace(text=piece.text[left:])
                yield Piece(piece.file, piece.text[:left])
                return
            left -= len(piece.text)
            yield piece
            if not left:
                return

    def second(self) -> Iterator[Piece]:
        if self._rest is not None:
            yield self._rest
        yield from self._pieces
