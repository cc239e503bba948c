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

# Everything matches one of the three, so the tokens joined are the text again.
_PIECES = re.compile(r"\w+|\s+|[^\w\s]")
# No single piece is held back for longer than this: memory stays bounded.
_LONGEST = 1 << 16
# Different words that are counted at a time: about 200 MB of memory, with all that is made of them.
_MOST_COUNTED = 1 << 19


class WordTokenizer(Tokenizer):
    """Words, runs of white space and single punctuation marks, numbered by frequency.

    Token 0 is `<unk>`, for words outside the vocabulary; it is written out as `<unk>`.

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
        """Counts the words of a text and keeps them all, or the most frequent `vocab_size` - 1.

        Past half a million different words those that were rarest so far are forgotten (Manku and
        Motwani 2002): only about rare words can the choice then be mistaken.

        Raises:
            TokenizerError: there are more than that, and all are to be kept.
        """
        counts: Counter[str] = Counter()
        most = max(_MOST_COUNTED, 2 * (vocab_size or 0))
        for chunk in whole_pieces(chunks):
            counts.update(cut(chunk))
            if len(counts) > most:
                if vocab_size is None:
                    raise TokenizerError(
                        f"the text has more than {most:,} different words; keep the most "
                        "frequent ones, as with vocab_size = 20000, or take a bpe tokenizer"
                    )
                counts = Counter(dict(counts.most_common(most // 2)))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(ranked if vocab_size is None else ranked[: vocab_size - 1])

    def encode_array(self, text: str) -> NDArray[np.uint32]:
        stoi = self.stoi
        return np.fromiter((stoi.get(piece, 0) for piece in cut(text)), dtype=np.uint32)

    def text_lengths(self, text: str) -> NDArray[np.int32]:
        lengths = (len(piece.encode("utf-8", "replace")) for piece in cut(text))
        return np.fromiter(lengths, dtype=np.int32)  # those of `<unk>` are not its own

    def encode_chunks(self, chunks: Iterable[str]) -> Iterator[NDArray[np.uint32]]:
        return super().encode_chunks(whole_pieces(chunks))

    def to_json(self) -> str:
        return json.dumps({"kind": self.kind, "vocabulary": self.itos[1:]})


def cut(text: str) -> list[str]:
    """The pieces of a text, white space included: `cut("To be,")` is `["To", " ", "be", ","]`."""
    return _PIECES.findall(text)


def whole_pieces(chunks: Iterable[str]) -> Iterator[str]:
    """The same text, cut anew so that no word lies across two chunks."""
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
