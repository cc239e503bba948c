"""A token per word, space and punctuation mark."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from minigpt_cli.errors import TokenizerError
from minigpt_cli.language import _
from minigpt_cli.tokenizer.base import SPLITTINGS, Tokenizer

UNKNOWN = "<unk>"

# Maximum characters held back for a single piece, which bounds memory.
_LONGEST = 1 << 16
# Maximum distinct words counted at a time: about 200 MB of memory in total.
_MOST_COUNTED = 1 << 19


class WordTokenizer(Tokenizer):
    """Words, runs of white space and single punctuation marks, ordered by frequency.

    Token 0 stands for words outside the vocabulary, and decodes to `<unk>`.

    Combining marks and joiners belong to the word that they are in: `हिन्दी`, and a decomposed `é`.

    Args:
        words: the vocabulary without `<unk>`.
        splitting: one of `SPLITTINGS`.
        end_of_text: whether the vocabulary has an end-of-text token.
    """

    kind = "word"
    unknown_id = 0

    def __init__(
        self, words: Iterable[str], splitting: int = SPLITTINGS[0], end_of_text: bool = False
    ) -> None:
        if splitting not in SPLITTINGS:
            raise ValueError(
                _("splitting {splitting!r:.20} is unknown").format(splitting=splitting)
            )
        self._splitting = splitting
        self.itos = [UNKNOWN, *words]
        self.stoi = {word: i for i, word in enumerate(self.itos)}
        self.token_bytes = [word.encode() for word in self.itos]
        if end_of_text:
            self._add_end_of_text()

    @classmethod
    def train(
        cls,
        chunks: Iterable[str],
        vocab_size: int | None = None,
        splitting: int = SPLITTINGS[0],
        end_of_text: bool = False,
    ) -> "WordTokenizer":
        """Counts the words of a text and keeps all, or the most frequent.

        With `vocab_size`, as many as make that number with `<unk>` and the end-of-text token.

        Beyond half a million distinct words, the rarest so far are dropped (lossy counting, Manku
        and Motwani 2002), so the choice is exact except among rare words.

        Raises:
            TokenizerError: there are more words than that, and no `vocab_size`.
        """
        counts: Counter[str] = Counter()
        most = max(_MOST_COUNTED, 2 * (vocab_size or 0))
        for chunk in whole_pieces(chunks, splitting):
            counts.update(cut(chunk, splitting))
            if len(counts) > most:
                if vocab_size is None:
                    raise TokenizerError(
                        _(
                            "the text has more than {most:,} distinct words; limit "
                            "data.vocab_size, or use the bpe tokenizer"
                        ).format(most=most),
                        ("data.vocab_size=20000", "data.tokenizer=bpe"),
                    )
                counts = Counter(dict(counts.most_common(most // 2)))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        kept = None if vocab_size is None else vocab_size - 1 - end_of_text
        return cls(ranked[:kept], splitting, end_of_text)

    def encode_array(self, text: str) -> NDArray[np.uint32]:
        stoi = self.stoi
        pieces = cut(text, self._splitting)
        return np.fromiter((stoi.get(piece, 0) for piece in pieces), dtype=np.uint32)

    def text_lengths(self, text: str) -> NDArray[np.int32]:
        lengths = (len(piece.encode("utf-8", "replace")) for piece in cut(text, self._splitting))
        return np.fromiter(lengths, dtype=np.int32)  # `<unk>` covers the bytes of the unknown word

    def independent(self, chunks: Iterable[str]) -> Iterator[str]:
        return whole_pieces(chunks, self._splitting)

    def to_json(self) -> str:
        version = {"splitting": self._splitting} if self._splitting > 1 else {}
        saved = {"kind": self.kind, **version, "vocabulary": self.itos[1:]}
        return json.dumps({**saved, **self._saved_end()})


def cut(text: str, splitting: int = SPLITTINGS[0]) -> list[str]:
    """The pieces of a text, white space included: `cut("To be,")` is `["To", " ", "be", ","]`."""
    return _pieces(splitting).findall(text)


def whole_pieces(chunks: Iterable[str], splitting: int = SPLITTINGS[0]) -> Iterator[str]:
    """The same text in other chunks, such that no word is split between two."""
    held, pieces = "", _pieces(splitting)
    for chunk in chunks:
        held += chunk
        starts = [match.start() for match in pieces.finditer(held, max(0, len(held) - _LONGEST))]
        if starts and starts[-1] > 0 and len(held) - starts[-1] < _LONGEST:
            yield held[: starts[-1]]
            held = held[starts[-1] :]
        elif len(held) >= _LONGEST:
            yield held
            held = ""
    if held:
        yield held


@cache
def _pieces(splitting: int) -> re.Pattern[str]:
    return re.compile(pieces_pattern(splitting))


def pieces_pattern(splitting: int, word: str = r"\w", space: str = r"\s") -> str:
    """A pattern for one piece. Every character belongs to one, so the pieces joined equal the text.

    Args:
        splitting: one of `SPLITTINGS`.
        word: what a class of characters has for the characters of words.
        space: and for white space.
    """
    first = f"[{word}]+" if splitting == 1 else f"[{word}][{word}\u200c\u200d{_marks()}]*"
    return f"{first}|[{space}]+|[^{word}{space}]"


def _marks() -> str:
    """All combining marks, as ranges for a class of characters; `re` has no name for them."""
    starts, last = [], 0
    for point in (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0)):
        if unicodedata.category(chr(point)).startswith("M"):
            if point != last + 1:
                starts.append([point, point])
            starts[-1][1] = last = point
    return "".join(f"{chr(first)}-{chr(end)}" for first, end in starts)
