"""Tokenizers as `tokenizer.json`, which Hugging Face's libraries read without our code.

Each becomes a model, a rule for cutting text and a rule for joining it again. The file says all
three, so that no version of a library has to guess.
"""

import json
import re
import sys
from collections.abc import Iterable
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from minigpt_cli.tokenizer.base import END_OF_TEXT, Tokenizer
from minigpt_cli.tokenizer.bpe import BPETokenizer, byte_alphabet
from minigpt_cli.tokenizer.byte import ByteTokenizer
from minigpt_cli.tokenizer.char import CharTokenizer
from minigpt_cli.tokenizer.pretrained import PretrainedTokenizer, inner_from_json
from minigpt_cli.tokenizer.word import UNKNOWN, WordTokenizer, pieces_pattern

_ANYTHING = r"[\s\S]"
"""One character; `.` would skip line breaks."""

TOKENIZER_CONFIG = {
    # Without a class named here, transformers 5 rebuilds the tokenizer of the model's family.
    "tokenizer_class": "PreTrainedTokenizerFast",
    # Without this, transformers 4 passes token types, which GPT-2 adds to the embeddings.
    "model_input_names": ["input_ids", "attention_mask"],
    "clean_up_tokenization_spaces": False,  # keeps "cat ." from becoming "cat."
}
"""Any further key, the names of special tokens above all, would change how a text is cut."""


END_CONFIG = {"eos_token": END_OF_TEXT, "split_special_tokens": True}
"""What `tokenizer_config.json` has for the end-of-text token, which no text may be cut into."""


def to_hf(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """The same tokenizer, of Hugging Face's library.

    It raises on a character that a `char` vocabulary lacks, as ours does. The end-of-text token is
    a special token there.
    """
    inner = _without_end(tokenizer)
    if tokenizer.end_of_text is not None and tokenizer.kind != "pretrained":
        inner.add_special_tokens([AddedToken(END_OF_TEXT, normalized=False, special=True)])
        inner.encode_special_tokens = True
    return inner


def _without_end(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    saved = json.loads(tokenizer.to_json())
    if tokenizer.kind == "pretrained":
        return tokenizers.Tokenizer.from_str(json.dumps(saved["tokenizer"]))
    if tokenizer.kind == "bpe":
        inner = tokenizers.Tokenizer.from_str(json.dumps(saved["tokenizer"]))
        inner.decoder = decoders.ByteLevel()
        return inner
    if tokenizer.kind == "byte":
        vocabulary = {char: byte for byte, char in enumerate(byte_alphabet())}
        inner = tokenizers.Tokenizer(models.BPE(vocabulary, []))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        inner.decoder = decoders.ByteLevel()
        return inner
    words = [token.decode() for token in tokenizer.token_bytes[: tokenizer.end_of_text]]
    inner = tokenizers.Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN)
    )
    pieces = _ANYTHING if tokenizer.kind == "char" else word_pieces(saved.get("splitting", 1))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(pieces), "isolated")
    inner.decoder = decoders.Fuse()  # without one, tokens are joined by spaces
    return inner


def word_pieces(splitting: int) -> str:
    r"""The pattern of the word tokenizer, with Python's `\w` and `\s` written out.

    The library's own classes differ from Python's in thousands of characters, and both change
    with each version of Unicode.
    """
    characters = "".join(map(chr, range(sys.maxunicode + 1)))
    word, space = (
        "".join(
            found[0] if len(found) == 1 else f"{found[0]}-{found[-1]}"
            for found in re.findall(pattern, characters)
        )
        for pattern in (r"\w+", r"\s+")
    )
    return pieces_pattern(splitting, word, space)


def from_hf(text: str, start_id: int | None, end_ids: Iterable[int]) -> Tokenizer:
    """Ours again, if `to_hf` wrote it; else the byte-level BPE that came with a model.

    Args:
        text: a `tokenizer.json`.
        start_id: the token before a text, where the model came with one.
        end_ids: tokens that end a text.

    Raises:
        ValueError: it is damaged, or of a kind that minigpt cannot read.
    """
    inner = inner_from_json(text)
    saved = json.loads(inner.to_str())
    try:
        ours = _ours(saved)
    except (KeyError, TypeError, ValueError, AttributeError):
        ours = None
    if ours is not None and _same(json.loads(to_hf(ours).to_str()), saved):
        return ours
    vocabulary = inner.get_vocab_size()
    known = [id_ for id_ in end_ids if id_ < vocabulary]
    return PretrainedTokenizer(
        inner, start_id if start_id is not None and start_id < vocabulary else None, known
    )


def _ours(saved: dict[str, Any]) -> Tokenizer:
    vocabulary = saved["model"]["vocab"]
    ends = bool(saved["added_tokens"])
    if saved["model"]["type"] == "WordLevel":
        words = sorted(vocabulary, key=vocabulary.__getitem__)
        pattern = _pattern(saved)
        if pattern == _ANYTHING:
            return CharTokenizer("".join(words), ends)
        return WordTokenizer(words[1:], 2 if "\u200c\u200d" in pattern else 1, ends)
    if not saved["model"]["merges"] and len(vocabulary) == 256:
        return ByteTokenizer(ends)
    return BPETokenizer.from_saved({**saved, "decoder": None, "added_tokens": []}, ends)


def _pattern(saved: dict[str, Any]) -> str:
    pattern: str = saved["pre_tokenizer"]["pattern"]["Regex"]
    return pattern


def _same(written: dict[str, Any], saved: dict[str, Any]) -> bool:
    """Whether two are the same, but for words as another version of Unicode has them."""
    if written["model"]["type"] == "WordLevel" and _pattern(written) != _ANYTHING:
        written["pre_tokenizer"]["pattern"] = saved["pre_tokenizer"]["pattern"]
    return written == saved
