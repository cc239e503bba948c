"""Makes a tokenizer from a text, or from its own JSON."""

import json
from collections.abc import Iterable

from minigpt_cli.choices import TokenizerKind
from minigpt_cli.errors import TokenizerError
from minigpt_cli.tokenizer.base import Tokenizer
from minigpt_cli.tokenizer.bpe import BPETokenizer
from minigpt_cli.tokenizer.byte import ByteTokenizer
from minigpt_cli.tokenizer.char import CharTokenizer
from minigpt_cli.tokenizer.word import WordTokenizer


def check_settings(kind: TokenizerKind, vocab_size: int | None) -> None:
    """Refuses a vocabulary size that the kind cannot have.

    Raises:
        TokenizerError: with the sizes that are possible.
    """
    if vocab_size is None:
        return
    if kind in ("char", "byte"):
        raise TokenizerError(
            f"vocab_size = {vocab_size}: a {kind} vocabulary has its own size; "
            "leave it out, or use --kind bpe"
        )
    least = 256 if kind == "bpe" else 2
    if vocab_size < least:
        raise TokenizerError(
            f"vocab_size = {vocab_size}: {kind} needs at least {least}"
            + (", one for each byte" if kind == "bpe" else "")
        )


def train_tokenizer(
    kind: TokenizerKind, chunks: Iterable[str], vocab_size: int | None = None
) -> Tokenizer:
    """Builds a tokenizer from a text that arrives in pieces.

    Raises:
        TokenizerError: the vocabulary size does not suit the kind.
    """
    check_settings(kind, vocab_size)
    if kind == "char":
        return CharTokenizer(char for chunk in chunks for char in set(chunk))
    if kind == "byte":
        return ByteTokenizer()
    if kind == "word":
        return WordTokenizer.train(chunks, vocab_size)
    return BPETokenizer.train(chunks, vocab_size)


def tokenizer_from_json(text: str) -> Tokenizer:
    """Makes a tokenizer again from what `Tokenizer.to_json` wrote.

    Raises:
        TokenizerError: the text is not that.
    """
    try:
        saved = json.loads(text)
        kind = saved["kind"]
        if kind == "byte":
            return ByteTokenizer()
        if kind == "bpe":
            return BPETokenizer.from_json(json.dumps(saved["tokenizer"]))
        vocabulary = saved["vocabulary"]
        if len(set(vocabulary)) != len(vocabulary) or not all(
            isinstance(entry, str) for entry in vocabulary
        ):
            raise ValueError("the vocabulary repeats itself")
        return {"char": CharTokenizer, "word": WordTokenizer}[kind](vocabulary)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise TokenizerError(f"the stored tokenizer cannot be read ({error})") from None
