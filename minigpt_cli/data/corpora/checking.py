"""What is worth knowing about a text before a model is trained on it."""

import codecs
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from minigpt_cli.data.corpora.corpus import Corpus, Piece
from minigpt_cli.data.corpora.encodings import is_utf8
from minigpt_cli.data.corpora.sources import TextFile, reason
from minigpt_cli.data.formats.names import FormatName
from minigpt_cli.data.formats.streams import open_stream
from minigpt_cli.data.progress import Progress, no_progress
from minigpt_cli.data.reading import Reading
from minigpt_cli.errors import CorpusError
from minigpt_cli.language import mark

RARE = 10
"""A character that occurs less often is rare: too little to learn its embedding from."""
SHORTEST = 40
"""Characters of a paragraph below which it is not compared: headings and chorus lines repeat."""
_MOST_PLACES = 5
_MOST_PASSAGES = 1 << 20
_CHUNK = 1 << 20
_BINARY: tuple[FormatName, ...] = ("parquet", "arrow")


@dataclass(frozen=True)
class BadBytes:
    """Bytes of a file that are not in its encoding."""

    path: str
    encoding: str
    places: tuple[int, ...]
    """Offsets of the first ones in the (decompressed) file, from 0."""
    more: bool
    """Whether there are others."""


@dataclass(frozen=True)
class Unreadable:
    """A file that is not the text that it should be."""

    path: Path
    error: CorpusError
    bad: BadBytes | None = None
    """Where it is not in its encoding, if that is what is wrong."""

    @property
    def reason(self) -> str:
        """What is wrong, without the file's name."""
        return reason(self.path, self.error)


@dataclass(frozen=True)
class Lengths:
    """Lengths in characters."""

    shortest: int
    median: int
    longest: int


@dataclass(frozen=True)
class TextCheck:
    """The result of looking at a whole text."""

    unit: str
    """What is compared: `documents`, or `paragraphs` of a text without."""
    passages: int
    lengths: Lengths | None
    """Of the documents or paragraphs; None where there are none."""
    duplicates: int
    """Documents or paragraphs that occurred before; of very many, estimated from a sample."""
    overlap: int
    """Those of the validation part that are in the training part too."""
    duplicate: str
    """The beginning of one that is there more than once; empty where there is none."""
    characters: int
    """Number of different characters."""
    rare_characters: int
    """How many of them occur fewer than `RARE` times."""
    rarest: str
    """Some of these."""


def readable(corpus: Corpus) -> tuple[Corpus, list[Unreadable]]:
    """The text without the files that cannot be read, and those files."""
    files, failed = [], []
    for file in corpus.files:
        try:
            deque(replace(corpus, files=(file,)).pieces(), maxlen=0)
            files.append(file)
        except CorpusError as error:
            failed.append(Unreadable(file.path, error, bad_bytes(file)))
    return replace(corpus, files=tuple(files)), failed


def bad_bytes(file: TextFile) -> BadBytes | None:
    """Where a file is not in its encoding; None where it is, and for files without encoding.

    Raises:
        CorpusError: the file cannot be read.
    """
    if file.format in _BINARY:
        return None
    encoding = "utf-8-sig" if is_utf8(file.encoding) else file.encoding
    decoder, consumed = codecs.getincrementaldecoder(encoding)(), 0
    places: list[int] = []
    with open_stream(file.path, file.compression) as stream:
        while data := stream.read(_CHUNK):
            rest, ended = data, False
            consumed += len(data)
            while not ended and len(places) <= _MOST_PLACES:
                try:
                    decoder.decode(rest)
                    ended = True
                except UnicodeDecodeError as error:  # what it looked at ends where the data ends
                    left = len(error.object) - error.end
                    places.append(consumed - len(error.object) + error.start)
                    decoder.reset()
                    rest = rest[len(rest) - left :] if left else b""
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            places.append(consumed - len(error.object) + error.start)
    if not places:
        return None
    kept = tuple(places[:_MOST_PLACES])
    return BadBytes(str(file.path), file.encoding, kept, len(places) > _MOST_PLACES)


def check_text(
    corpus: Corpus, reading: Reading, val_fraction: float, progress: Progress = no_progress
) -> TextCheck:
    """Looks for repeated passages, rare characters and unusual lengths.

    Args:
        corpus: the text.
        reading: of the same text.
        val_fraction: where its validation part begins.
        progress: called while it is read.

    Raises:
        CorpusError: a file cannot be read.
    """
    split = reading.training_characters(val_fraction)
    counts = np.zeros(0x110000, dtype=np.int64)
    seen, lengths = _Seen(), list[int]()
    step, number = 1, 0

    def counted(pieces: Iterator[Piece]) -> Iterator[Piece]:
        for piece in pieces:
            points = np.frombuffer(piece.text.encode("utf-32-le", "surrogatepass"), np.uint32)
            found = np.bincount(points)
            counts[: len(found)] += found
            yield piece

    pieces = counted(corpus.pieces(progress, mark("Checking")))
    passages = _documents(pieces) if corpus.has_documents else _paragraphs(pieces)
    for start, length, digest, beginning in passages:
        seen.add(digest, beginning, is_validation=start >= split)
        if number % step == 0:
            lengths.append(length)
            if len(lengths) >= _MOST_PASSAGES:
                del lengths[1::2]
                step *= 2
        number += 1
    present = np.flatnonzero(counts)
    rare = present[counts[present] < RARE]
    rarest = rare[np.argsort(counts[rare], kind="stable")][:20]
    return TextCheck(
        unit="documents" if corpus.has_documents else "paragraphs",
        passages=number,
        lengths=Lengths(min(lengths), int(np.median(lengths)), max(lengths)) if lengths else None,
        duplicates=seen.duplicates,
        overlap=seen.overlap,
        duplicate=seen.example,
        characters=len(present),
        rare_characters=len(rare),
        rarest="".join(map(chr, rarest.tolist())),
    )


class _Seen:
    """Which passages occurred before; of very many, those of a sample chosen by their digest."""

    def __init__(self) -> None:
        self._sides: dict[int, int] = {}  # digest to 1 (training), 2 (validation) or both
        self._bits = 0
        self._duplicates = self._overlap = 0
        self.example = ""

    def add(self, digest: int, beginning: str, is_validation: bool) -> None:
        if digest & ((1 << self._bits) - 1):
            return
        before = self._sides.get(digest, 0)
        self._sides[digest] = before | (2 if is_validation else 1)
        if before:
            self._duplicates += 1
            self.example = self.example or beginning
        if is_validation and before & 1:
            self._overlap += 1
        if len(self._sides) > _MOST_PASSAGES:
            self._bits += 1
            mask = (1 << self._bits) - 1
            self._sides = {key: side for key, side in self._sides.items() if not key & mask}
            self._duplicates //= 2
            self._overlap //= 2

    @property
    def duplicates(self) -> int:
        return self._duplicates << self._bits

    @property
    def overlap(self) -> int:
        return self._overlap << self._bits


_Passage = tuple[int, int, int, str]
"""Place and length in characters, digest of the text, and its beginning."""


def _documents(pieces: Iterator[Piece]) -> Iterator[_Passage]:
    place = length = 0
    digest, beginning = blake2b(digest_size=8), ""
    for piece in pieces:
        digest.update(piece.text.encode("utf-8", "surrogatepass"))
        beginning = beginning or piece.text[:60]
        length += len(piece.text)
        if piece.ends_document:
            yield place, length, int.from_bytes(digest.digest(), "little"), beginning
            place, length = place + length, 0
            digest, beginning = blake2b(digest_size=8), ""


def _paragraphs(pieces: Iterator[Piece]) -> Iterator[_Passage]:
    """Paragraphs, which empty lines separate."""
    held, place = "", 0
    for piece in pieces:
        *whole, held = (held + piece.text).split("\n\n")
        if len(held) > _CHUNK:  # a text without empty lines
            whole, held = [*whole, held], ""
        for text in whole:
            yield from _paragraph(text, place)
            place += len(text) + 2
    yield from _paragraph(held, place)


def _paragraph(text: str, place: int) -> Iterator[_Passage]:
    stripped = text.strip()
    if len(stripped) >= SHORTEST:
        data = stripped.encode("utf-8", "surrogatepass")
        digest = int.from_bytes(blake2b(data, digest_size=8).digest(), "little")
        yield place, len(stripped), digest, stripped[:60]
