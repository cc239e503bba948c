"""One pass over a text: its fingerprint, its characters, and where the validation part begins."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from minigpt_cli.data.corpus import Corpus, Piece
from minigpt_cli.data.progress import Progress, no_progress

MOST_VALIDATION = 40_000_000
"""Characters that are kept for validation of a text with documents: about 10 million BPE tokens."""
END_MARK = b"\xff"
"""Hashed where a document ends; no text has this byte."""
_MOST_ENDS = 1 << 16


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
    digest, size, characters = hashlib.sha256(), 0, 0
    counts = [0] * len(corpus.files)
    alphabet: set[str] = set()
    ends = _Ends()
    for piece in corpus.pieces(progress):
        data = to_utf8(piece.text)
        digest.update(data)
        size += len(data)
        characters += len(piece.text)
        counts[piece.file] += len(piece.text)
        alphabet.update(piece.text)
        if piece.ends_document:
            digest.update(END_MARK)
            ends.add(characters)
    return Reading(
        corpus, digest.hexdigest(), size, tuple(counts), "".join(sorted(alphabet)), ends.count,
        tuple(ends.places),
    )  # fmt: skip


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
