"""Makes a tokenizer from a text, or from its own JSON."""

from collections.abc import Iterable

from minigpt_cli.config.choices import TokenizerKind
from minigpt_cli.errors import TokenizerError
from minigpt_cli.io.strict_json import read_json
from minigpt_cli.tokenizer.base import Tokenizer
from minigpt_cli.tokenizer.bpe import BPETokenizer
from minigpt_cli.tokenizer.byte import ByteTokenizer
from minigpt_cli.tokenizer.char import CharTokenizer
from minigpt_cli.tokenizer.word import WordTokenizer

MOST_BPE_TOKENS = 1 << 20
"""Many times what anybody uses; the library sets memory aside for what is asked, or aborts."""


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
    if kind == "bpe" and vocab_size > MOST_BPE_TOKENS:
        raise TokenizerError(f"vocab_size = {vocab_size}: bpe takes at most {MOST_BPE_TOKENS:,}")


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
        saved = read_json(text)
        kind = saved["kind"]
        if kind == "bpe":
            return BPETokenizer.from_saved(saved["tokenizer"])
        tokenizer: Tokenizer
        if kind == "byte":
            tokenizer = ByteTokenizer()
        else:
            tokenizer = {"char": CharTokenizer, "word": WordTokenizer}[kind](saved["vocabulary"])
    except KeyError as error:
        raise _damaged(f"there is no {error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise _damaged(str(error)) from None
    # What would be written otherwise had characters out of order, or words in a list of another
    # kind; and no two tokens say the same, and none says nothing.
    different = {b"", *tokenizer.token_bytes}
    if read_json(tokenizer.to_json()) != saved or len(different) != 1 + tokenizer.vocab_size:
        raise _damaged("the vocabulary is not as it was written")
    return tokenizer


def _damaged(reason: str) -> TokenizerError:
    return TokenizerError(f"the stored tokenizer cannot be read ({reason:.200})")
