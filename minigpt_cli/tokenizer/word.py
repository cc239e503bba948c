"""A token per word, space and punctuation mark."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from minigpt_cli.errors import TokenizerError
from minigpt_cli.tokenizer.base import Tokenizer

UNKNOWN = "<unk>"

# Every character matches one of the three, so the tokens joined equal the text.
_PIECES = re.compile(r"\w+|\s+|[^\w\s]")
# Maximum characters held back for a single piece, which bounds memory.
_LONGEST = 1 << 16
# Maximum distinct words counted at a time: about 200 MB of memory in total.
_MOST_COUNTED = 1 << 19


class WordTokenizer(Tokenizer):
    """Words, runs of white space and single punctuation marks, ordered by frequency.

    Token 0 stands for words outside the vocabulary, and decodes to `<unk>`.

    Args:
        words: the vocabulary without `<unk>`.
    """

    kind = "word"
    unknown_id = 0

    def __init__(self, words: Iterable[str]) -> None:
        self.itos = [UNKNOWN, *words]
        self.stoi = {word: i for i, word in enumerate(self.itos)}
        self.token_bytes = [word.encode() for word in self.itos]

    @classmethod
    def train(cls, chunks: Iterable[str], vocab_size: int | None = None) -> "WordTokenizer":
        """Counts the words of a text and keeps all, or the most frequent `vocab_size` - 1.

        Beyond half a million distinct words, the rarest so far are dropped (lossy counting, Manku
        and Motwani 2002), so the choice is exact except among rare words.

        Raises:
            TokenizerError: there are more words than that, and no `vocab_size`.
        """
        counts: Counter[str] = Counter()
        most = max(_MOST_COUNTED, 2 * (vocab_size or 0))
        for chunk in whole_pieces(chunks):
            counts.update(cut(chunk))
            if len(counts) > most:
                if vocab_size is None:
                    raise TokenizerError(
                        f"the text has more than {most:,} distinct words; limit "
                        "data.vocab_size, or use the bpe tokenizer",
                        ("data.vocab_size=20000", "data.tokenizer=bpe"),
                    )
                counts = Counter(dict(counts.most_common(most // 2)))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(ranked if vocab_size is None else ranked[: vocab_size - 1])

    def encode_array(self, text: str) -> NDArray[np.uint32]:
        stoi = self.stoi
        return np.fromiter((stoi.get(piece, 0) for piece in cut(text)), dtype=np.uint32)

    def text_lengths(self, text: str) -> NDArray[np.int32]:
        lengths = (len(piece.encode("utf-8", "replace")) for piece in cut(text))
        return np.fromiter(lengths, dtype=np.int32)  # `<unk>` covers the bytes of the unknown word

    def encode_chunks(self, chunks: Iterable[str]) -> Iterator[NDArray[np.uint32]]:
        return super().encode_chunks(whole_pieces(chunks))

    def to_json(self) -> str:
        return json.dumps({"kind": self.kind, "vocabulary": self.itos[1:]})


def cut(text: str) -> list[str]:
    """The pieces of a text, white space included: `cut("To be,")` is `["To", " ", "be", ","]`."""
    return _PIECES.findall(text)


def whole_pieces(chunks: Iterable[str]) -> Iterator[str]:
    """The same text in other chunks, such that no word is split between two."""
    held = ""
    for chunk in chunks:
        held += chunk
        starts = [match.start() for match in _PIECES.finditer(held, max(0, len(held) - _LONGEST))]
        if starts and starts[-1] > 0 and len(held) - starts[-1] < _LONGEST:
            yield held[: starts[-1]]
            held = held[starts[-1] :]
        elif len(held) >= _LONGEST:
            yield held
            held = ""
    if held:
        yield held
