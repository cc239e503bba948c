"""A token per frequent byte sequence."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import Regex, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.trainers import BpeTrainer

from minigpt_cli.language import _
from minigpt_cli.tokenizer.base import SPLITTINGS, Tokenizer

DEFAULT_VOCAB_SIZE = 1024

# GPT-2's pattern, but for marks and joiners: they belong to the letter that they follow.
_PATTERN = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}[\p{L}\p{M}\x{200c}\x{200d}]*| ?\p{N}+"
    r"| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
# Places where GPT-2's pre-tokenizer always splits, so that a text may be split there: before the
# last white space ahead of a word, and, for scripts without spaces, after punctuation. Only
# characters whose class is the same in every version of Unicode count; U+001C to U+001F are
# excluded because only Python treats them as white space.
_BEFORE_SPACE = re.compile(r"[^\S\x1c-\x1f](?=[\S\x1c-\x1f])")
_AFTER_PUNCTUATION = re.compile(r"(?<=[、。，；：！？…」』”])(?=[ぁ-ゖァ-ヺ一-龥])")
_LONGEST = 1 << 16
_PIECE = 1 << 14
# Learning a merge takes time that grows with the square of a word's length, so a text without
# spaces, such as DNA, is learned from in words of this many characters.
_LONG_WORD = re.compile(r"\S{400}")


class BPETokenizer(Tokenizer):
    """Byte-level byte-pair encoding (Sennrich et al. 2016, Radford et al. 2019).

    It can encode any text. Hugging Face's `tokenizers` does the work; this class adds streaming and
    the bytes of each token.

    Args:
        inner: a trained byte-level BPE tokenizer.
        end_of_text: whether the vocabulary has an end-of-text token, which `inner` does not know.
    """

    kind = "bpe"

    def __init__(self, inner: tokenizers.Tokenizer, end_of_text: bool = False) -> None:
        self._inner = inner
        byte_of = {char: byte for byte, char in enumerate(byte_alphabet())}
        vocabulary: dict[str, int] = inner.get_vocab()
        if not byte_of.keys() <= vocabulary.keys():
            raise ValueError(_("a byte has no token"))  # the library would drop the byte from texts
        if not all(token and byte_of.keys() >= {*token} for token in vocabulary):
            raise ValueError(_("a token is empty or not made of bytes"))
        self.token_bytes = [
            bytes(byte_of[char] for char in token)
            for token in sorted(vocabulary, key=vocabulary.__getitem__)
        ]
        if end_of_text:
            self._add_end_of_text()

    @classmethod
    def train(
        cls,
        chunks: Iterable[str],
        vocab_size: int | None = None,
        splitting: int = SPLITTINGS[0],
        end_of_text: bool = False,
    ) -> "BPETokenizer":
        """Learns merges from a text, up to `vocab_size` tokens (at least the 256 bytes)."""
        inner = _byte_level(BPE(), splitting)
        trainer = BpeTrainer(
            vocab_size=(vocab_size or DEFAULT_VOCAB_SIZE) - end_of_text,
            initial_alphabet=ByteLevel.alphabet(),
            show_progress=False,
        )
        # The library buffers 256 pieces at a time, so they are small.
        pieces = (chunk[i : i + _PIECE] for chunk in chunks for i in range(0, len(chunk), _PIECE))
        inner.train_from_iterator(_short_words(splittable(pieces)), trainer)
        return cls(inner, end_of_text)

    @classmethod
    def from_saved(cls, saved: Any, end_of_text: bool = False) -> "BPETokenizer":
        """Rebuilds the tokenizer from the library's own JSON, already parsed.

        Only vocabulary and merges are used. The library's JSON can also contain regular
        expressions, text to insert, and randomness, so any setting that differs from training is
        an error.

        Raises:
            KeyError: a part is missing.
            TypeError: a part has the wrong type.
            ValueError: the vocabulary or the merges are damaged, or a setting differs.
        """
        vocabulary, merges = saved["model"]["vocab"], saved["model"]["merges"]
        if sorted(vocabulary.values()) != list(range(len(vocabulary))):
            raise ValueError(_("the token ids have gaps"))
        # Such a merge of letters beyond ASCII makes the library panic, which is not an Exception.
        if not all(left + right in vocabulary for left, right in merges):
            raise ValueError(_("a merge does not give a token"))
        try:
            model = BPE(vocabulary, [(left, right) for left, right in merges])
            splitting = 1 if saved.get("pre_tokenizer", {}).get("type") == "ByteLevel" else 2
            inner = _byte_level(model, splitting)
        except Exception as error:  # the library raises bare Exception
            raise ValueError(str(error)) from None
        rebuilt = json.loads(inner.to_str())
        for part, whole in ((saved, rebuilt), (saved["model"], rebuilt["model"])):
            for name in part.keys() & whole.keys() - {"model"}:
                if part[name] != whole[name]:
                    raise ValueError(_("{name} has been changed").format(name=name))
        return cls(inner, end_of_text)

    def encode_array(self, text: str) -> NDArray[np.uint32]:
        return self.encode_texts([text])[0]

    def encode_texts(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        return encode_in_pieces(self._inner.encode_batch_fast, texts, splittable)

    def independent(self, chunks: Iterable[str]) -> Iterator[str]:
        return splittable(chunks)

    def to_json(self) -> str:
        saved = {"kind": self.kind, "tokenizer": json.loads(self._inner.to_str())}
        return json.dumps({**saved, **self._saved_end()})


def encode_in_pieces(
    encode_batch: Callable[[list[str]], Sequence[tokenizers.Encoding]],
    texts: Sequence[str],
    split: Callable[[Iterable[str]], Iterator[str]],
) -> list[NDArray[np.uint32]]:
    """The ids of each text, encoded in parallel.

    Args:
        encode_batch: of Hugging Face's library.
        texts: lone surrogates in them become `?`.
        split: gives a text in other pieces, such that no token is split between two.
    """
    pieces, counts = [], []
    for text in texts:
        valid = text.encode("utf-8", errors="replace").decode()
        parts = list(split(valid[i : i + _PIECE] for i in range(0, len(valid), _PIECE)))
        pieces += parts
        counts.append(len(parts))
    arrays = iter([np.array(each.ids, dtype=np.uint32) for each in encode_batch(pieces)])
    nothing = np.empty(0, dtype=np.uint32)
    return [np.concatenate([nothing, *islice(arrays, count)]) for count in counts]


def splittable(chunks: Iterable[str]) -> Iterator[str]:
    """The same text in other chunks, split where BPE always splits.

    A stretch of 65,536 characters without white space or punctuation is split anywhere.
    """
    held = ""
    for chunk in chunks:
        held += chunk
        start = max(0, len(held) - _LONGEST)
        place = 0
        for boundary in (_BEFORE_SPACE, _AFTER_PUNCTUATION):
            for match in boundary.finditer(held, start):
                place = match.start()
            if place:
                break
        if not place and len(held) >= _LONGEST:
            place = len(held)
        if place:
            yield held[:place]
            held = held[place:]
    if held:
        yield held


def _short_words(chunks: Iterable[str]) -> Iterator[str]:
    """The same text in other chunks, cut where a word would be longer than 400 characters."""
    for chunk in chunks:
        place = 0
        for match in _LONG_WORD.finditer(chunk):
            yield chunk[place : match.end()]
            place = match.end()
        if place < len(chunk):
            yield chunk[place:]


def _byte_level(model: BPE, splitting: int) -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer(model)
    if splitting == 1:
        inner.pre_tokenizer = ByteLevel(add_prefix_space=False)
    else:
        split = Split(Regex(_PATTERN), "isolated")
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [split, ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    return inner


def byte_alphabet() -> list[str]:
    """The printable character that represents each byte in GPT-2's vocabulary files.

    Printable Latin-1 represents itself, and every other byte is the next character from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
