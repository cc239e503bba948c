"""Builds a tokenizer from a text, or from its JSON.

The library of the `bpe` and `pretrained` kinds is imported for them alone.
"""

from collections.abc import Iterable

from minigpt_cli.config.choices import TokenizerKind
from minigpt_cli.errors import TokenizerError
from minigpt_cli.io.strict_json import read_json
from minigpt_cli.language import _
from minigpt_cli.tokenizer.base import SPLITTINGS, Tokenizer
from minigpt_cli.tokenizer.byte import ByteTokenizer
from minigpt_cli.tokenizer.char import CharTokenizer
from minigpt_cli.tokenizer.word import WordTokenizer

MOST_BPE_TOKENS = 1 << 20
"""Far above any real vocabulary; the library allocates for this many tokens, or aborts."""


def check_settings(kind: TokenizerKind, vocab_size: int | None, end_of_text: bool = False) -> None:
    """Checks that a tokenizer of this kind can have this vocabulary size.

    Args:
        kind: the kind of tokenizer.
        vocab_size: the most tokens, if there is a limit.
        end_of_text: whether one of them is the end-of-text token.

    Raises:
        TokenizerError: it cannot; the message gives the limits.
    """
    if kind == "pretrained":
        raise TokenizerError(_("a pretrained tokenizer comes with a model; train with --init-from"))
    if vocab_size is None:
        return
    if kind in ("char", "byte"):
        raise TokenizerError(
            _(
                "data.vocab_size = {vocab_size}: the {kind} tokenizer has a vocabulary of "
                "fixed size; remove the setting, or use the bpe tokenizer"
            ).format(vocab_size=vocab_size, kind=kind),
            ("data.tokenizer=bpe",),
        )
    least = (256 if kind == "bpe" else 2) + end_of_text
    if vocab_size < least:
        raise TokenizerError(
            _("data.vocab_size = {vocab_size}: {kind} needs at least {least}").format(
                vocab_size=vocab_size, kind=kind, least=least
            )
            + (_(", one for each byte") if kind == "bpe" else "")
            + (_(" and one for the end of text") if end_of_text else "")
        )
    if kind == "bpe" and vocab_size > MOST_BPE_TOKENS:
        raise TokenizerError(
            _("data.vocab_size = {vocab_size}: bpe allows at most {most_bpe_tokens:,}").format(
                vocab_size=vocab_size, most_bpe_tokens=MOST_BPE_TOKENS
            )
        )


def train_tokenizer(
    kind: TokenizerKind,
    chunks: Iterable[str],
    vocab_size: int | None = None,
    splitting: int = SPLITTINGS[0],
    end_of_text: bool = False,
) -> Tokenizer:
    """Builds a tokenizer from a text given in pieces.

    Args:
        kind: the kind of tokenizer.
        chunks: the text.
        vocab_size: the most tokens, for kinds that have a choice.
        splitting: one of `SPLITTINGS`.
        end_of_text: whether the vocabulary has an end-of-text token.

    Raises:
        TokenizerError: the kind cannot have this vocabulary size, or this many words.
    """
    check_settings(kind, vocab_size, end_of_text)
    if kind == "char":
        return CharTokenizer((char for chunk in chunks for char in set(chunk)), end_of_text)
    if kind == "byte":
        return ByteTokenizer(end_of_text)
    if kind == "word":
        return WordTokenizer.train(chunks, vocab_size, splitting, end_of_text)
    from minigpt_cli.tokenizer.bpe import BPETokenizer

    return BPETokenizer.train(chunks, vocab_size, splitting, end_of_text)


def tokenizer_from_json(text: str) -> Tokenizer:
    """Rebuilds a tokenizer from what `Tokenizer.to_json` returned.

    Raises:
        TokenizerError: the JSON is damaged.
    """
    try:
        saved = read_json(text)
        kind, ends = saved["kind"], saved.get("end_of_text", False)
        if not isinstance(ends, bool):
            raise ValueError(_("end_of_text is not true or false"))
        if kind == "bpe":
            from minigpt_cli.tokenizer.bpe import BPETokenizer

            return BPETokenizer.from_saved(saved["tokenizer"], ends)
        if kind == "pretrained":
            from minigpt_cli.tokenizer.pretrained import PretrainedTokenizer

            return PretrainedTokenizer.from_saved(saved)
        tokenizer: Tokenizer
        if kind == "byte":
            tokenizer = ByteTokenizer(ends)
        elif kind == "word":
            tokenizer = WordTokenizer(saved["vocabulary"], saved.get("splitting", 1), ends)
        else:
            tokenizer = {"char": CharTokenizer}[kind](saved["vocabulary"], ends)
    except KeyError as error:
        raise _damaged(_("{error} is missing").format(error=error)) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise _damaged(str(error)) from None
    # Writing it again must give the same JSON (characters in order, words in a list), and all
    # tokens must be distinct and none empty but the end-of-text token.
    distinct = {b"", *tokenizer.token_bytes}
    count = tokenizer.vocab_size + (not ends)
    if read_json(tokenizer.to_json()) != saved or len(distinct) != count:
        raise _damaged(_("the vocabulary has been changed"))
    return tokenizer


def _damaged(reason: str) -> TokenizerError:
    return TokenizerError(
        _("the stored tokenizer cannot be read ({reason:.200})").format(reason=reason)
    )
