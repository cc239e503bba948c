"""Tokenizers from files: GPT-2's own, a `tokenizer.json`, or one that minigpt wrote."""

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from minigpt_cli.errors import TokenizerError, reraise_as
from minigpt_cli.io.regular import read_bounded
from minigpt_cli.language import _
from minigpt_cli.tokenizer.base import END_OF_TEXT, Tokenizer
from minigpt_cli.tokenizer.factory import tokenizer_from_json
from minigpt_cli.tokenizer.pretrained import PretrainedTokenizer, inner_from_json

_WHOLE, _CONFIG = "tokenizer.json", "tokenizer_config.json"
_PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
"""A vocabulary and its merges, as Hugging Face and as OpenAI name them."""
_MOST_BYTES = 1 << 28
_ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>")
"""What models call the token after a text."""


def read_tokenizer(path: Path) -> Tokenizer:
    """Reads a tokenizer; one without an end-of-text token is given one.

    Args:
        path: a `tokenizer.json`, or a folder with it or with GPT-2's `vocab.json` and
            `merges.txt` (`encoder.json` and `vocab.bpe`).

    Raises:
        TokenizerError: it is missing, damaged, or of a kind that minigpt cannot read.
    """
    folder = path if path.is_dir() else path.parent
    names = {name for pair in _PAIRS for name in pair}
    try:
        if path.is_dir() and (path / _WHOLE).is_file():
            return _from_json(path / _WHOLE)
        if not path.is_dir() and path.name not in names:
            return _from_json(path)
        for vocabulary, merges in _PAIRS:
            if (folder / vocabulary).is_file() and (folder / merges).is_file():
                return _from_pair(folder / vocabulary, folder / merges)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise TokenizerError(
            _("{path}: not a tokenizer ({error:.120})").format(path=path, error=str(error))
        ) from None
    raise TokenizerError(
        _("{path}: no tokenizer; it needs tokenizer.json, or vocab.json with merges.txt").format(
            path=path
        )
    )


def _read(path: Path) -> str:
    with reraise_as(TokenizerError, path, "read", missing=_("no such file"), also=(ValueError,)):
        return read_bounded(path, _MOST_BYTES).decode()


def _from_json(path: Path) -> Tokenizer:
    text = _read(path)
    saved = json.loads(text)
    if "kind" in saved:
        return tokenizer_from_json(text)
    beside = path.with_name(_CONFIG)
    said = json.loads(_read(beside)) if beside.is_file() else {}
    return _with_end(inner_from_json(text), _name(said, "bos_token"), _name(said, "eos_token"))


def _name(said: Any, key: str) -> str | None:
    token = said.get(key)
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else None


def _from_pair(vocabulary_path: Path, merges_path: Path) -> Tokenizer:
    vocabulary = json.loads(_read(vocabulary_path))
    lines = _read(merges_path).split("\n")
    if lines and lines[0].startswith("#version"):
        del lines[0]
    merges = [(left, right) for left, right in (line.split(" ") for line in lines if line)]
    # The library panics for such a merge, and for ids it allocates as many places.
    if not all(left + right in vocabulary for left, right in merges):
        raise ValueError(_("{name} has a merge that gives no token").format(name=merges_path.name))
    if not all(type(id_) is int and 0 <= id_ < 2 * len(vocabulary) for id_ in vocabulary.values()):
        raise ValueError(_("{name} has ids above the vocabulary").format(name=vocabulary_path.name))
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return _with_end(inner, None, None)


def _with_end(inner: tokenizers.Tokenizer, start: str | None, end: str | None) -> Tokenizer:
    """The tokenizer with a token that ends a text.

    Args:
        inner: of Hugging Face's library.
        start: the token before a text, if it is known; else the one that ends the text before.
        end: the token after a text, if it is known; else one with a common name, or a new one.
    """
    special = {token.content for token in inner.get_added_tokens_decoder().values()}
    vocabulary = inner.get_vocab()
    known = [name for name in (end, *_ENDS) if name in special]
    known += [END_OF_TEXT] * (END_OF_TEXT in vocabulary)
    name = next(iter(known), END_OF_TEXT)
    inner.add_special_tokens([AddedToken(name, normalized=False, special=True)])
    end_id = inner.token_to_id(name)
    assert end_id is not None
    start_id = inner.token_to_id(start) if start in special else None
    return PretrainedTokenizer(inner, end_id if start_id is None else start_id, [end_id])
