"""The byte-level BPE of a model trained elsewhere, as its `tokenizer.json` has it."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from minigpt_cli.language import _
from minigpt_cli.tokenizer.base import END_OF_TEXT, Tokenizer
from minigpt_cli.tokenizer.bpe import byte_alphabet, encode_in_pieces

# All known patterns of byte-level BPE split here, before a space between two words.
_BETWEEN_WORDS = re.compile(r"(?<=[A-Za-z]) (?=[A-Za-z])")
_LONGEST = 1 << 16


class PretrainedTokenizer(Tokenizer):
    """A tokenizer that came with a model, or from a file.

    Special tokens in a text are text: they are not looked for.

    Args:
        inner: a byte-level BPE tokenizer of Hugging Face's library.
        start_id: the token before a text, if there is one.
        end_ids: tokens that end a text.

    Raises:
        ValueError: its tokens do not stand for fixed bytes.
    """

    kind = "pretrained"

    def __init__(
        self, inner: tokenizers.Tokenizer, start_id: int | None, end_ids: Iterable[int]
    ) -> None:
        self._inner, self._start_id = inner, start_id
        self.end_ids = frozenset(end_ids)
        saved = json.loads(inner.to_str())
        _check_byte_level(saved)
        inner.encode_special_tokens = True
        byte_of = {char: byte for byte, char in enumerate(byte_alphabet())}
        added = {token["id"]: token["content"].encode() for token in saved["added_tokens"]}
        found = dict(added)
        for token, id_ in saved["model"]["vocab"].items():
            if id_ not in added:
                if not byte_of.keys() >= {*token}:
                    raise ValueError(
                        _("the token {token!r:.40} is not made of bytes").format(token=token)
                    )
                found[id_] = bytes(byte_of[char] for char in token)
        if max(found) >= 2 * len(found):
            raise ValueError(_("the token ids have large gaps"))
        self.token_bytes = [found.get(id_, b"") for id_ in range(max(found) + 1)]
        if not self.end_ids <= {*range(self.vocab_size)} or (start_id or 0) >= self.vocab_size:
            raise ValueError(_("the start or end token is not in the vocabulary"))
        named = [id_ for id_ in self.end_ids if added.get(id_) == END_OF_TEXT.encode()]
        self.end_of_text = next(iter([*named, *sorted(self.end_ids)]), None)

    @classmethod
    def from_saved(cls, saved: Any) -> "PretrainedTokenizer":
        """Restores it from its own JSON, already parsed.

        Raises:
            KeyError: a part is missing.
            TypeError: a part has the wrong type.
            ValueError: a part is damaged.
        """
        return cls(inner_from_json(json.dumps(saved["tokenizer"])), saved["start"], saved["ends"])

    def encode_array(self, text: str) -> NDArray[np.uint32]:
        return self.encode_texts([text])[0]

    def encode_texts(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        batch = partial(self._inner.encode_batch_fast, add_special_tokens=False)
        return encode_in_pieces(batch, texts, _between_words)

    def independent(self, chunks: Iterable[str]) -> Iterator[str]:
        return _between_words(chunks)

    def text_lengths(self, text: str) -> NDArray[np.int32]:
        lengths = super().text_lengths(text)
        if len(lengths):  # a normalizer may have changed the text: the bytes are the text's own
            lengths[-1] += len(text.encode("utf-8", "replace")) - int(lengths.sum())
        return lengths

    @property
    def start_ids(self) -> list[int]:
        return super().start_ids if self._start_id is None else [self._start_id]

    def to_json(self) -> str:
        saved = {"tokenizer": json.loads(self._inner.to_str()), "start": self._start_id}
        return json.dumps({"kind": self.kind, **saved, "ends": sorted(self.end_ids)})


def inner_from_json(text: str) -> tokenizers.Tokenizer:
    """Reads a `tokenizer.json`.

    Raises:
        ValueError: it is not one.
    """
    try:
        return tokenizers.Tokenizer.from_str(text)
    except BaseException as error:  # the library raises bare Exception, and its panics are neither
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(_("not a tokenizer.json ({error!s:.100})").format(error=error)) from None


def _check_byte_level(saved: Any) -> None:
    """Raises unless each token stands for the same bytes wherever it is."""
    model, pre = saved["model"], saved["pre_tokenizer"] or {}
    steps = pre.get("pretokenizers", [pre])
    if model["type"] != "BPE" or not steps or steps[-1].get("type") != "ByteLevel":
        raise ValueError(_("not a byte-level BPE; minigpt can read no other kind of tokenizer"))
    if (saved["decoder"] or {}).get("type") != "ByteLevel":
        raise ValueError(_("the decoder is not ByteLevel"))
    if any(step.get("add_prefix_space") for step in steps):
        raise ValueError(_("it adds a space before a text (add_prefix_space)"))
    if (saved["normalizer"] or {"type": "NFC"})["type"] != "NFC":
        raise ValueError(_("it normalizes texts otherwise than by NFC"))
    unusual = [key for key in ("byte_fallback", "dropout", "continuing_subword_prefix",
                               "end_of_word_suffix") if model.get(key)]  # fmt: skip
    if unusual:
        raise ValueError(_("{name} is not supported").format(name=unusual[0]))


def _between_words(chunks: Iterable[str]) -> Iterator[str]:
    """The same text in other pieces, such that no token is split between two.

    A stretch of 65,536 characters without a place to split is split anywhere.
    """
    held = ""
    for chunk in chunks:
        held += chunk
        places = [match.start() for match in _BETWEEN_WORDS.finditer(held)]
        place = places[-1] if places else len(held) if len(held) >= _LONGEST else 0
        if place:
            yield held[:place]
            held = held[place:]
    if held:
        yield held
