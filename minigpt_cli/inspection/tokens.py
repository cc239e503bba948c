"""A text as the tokens in a model's context window."""

import re
from dataclasses import dataclass

from minigpt_cli.errors import ConfigError
from minigpt_cli.language import _
from minigpt_cli.runs.checkpoint import Checkpoint
from minigpt_cli.tokenizer.base import END_OF_TEXT, Tokenizer

_NAMES = {" ": "␣", "\n": "↵", "\t": "⇥"}


@dataclass(frozen=True)
class Window:
    """The last tokens of a text, at most `block_size` of them."""

    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    """The text of each token (see `token_text`)."""
    left_out: int
    """Number of earlier tokens, outside the window."""


def window(checkpoint: Checkpoint, text: str) -> Window:
    """Tokenizes a text and keeps the last `block_size` tokens.

    Raises:
        ConfigError: the text is empty.
        TokenizerError: the text contains characters that are not in the vocabulary.
    """
    if not text:
        raise ConfigError(_("the text is empty; give at least one character"))
    tokenizer = checkpoint.tokenizer
    ids = tokenizer.encode(text)
    kept = ids[-checkpoint.metadata.model.block_size :]
    return Window(
        ids=tuple(kept),
        tokens=tuple(token_text(tokenizer, i) for i in kept),
        left_out=len(ids) - len(kept),
    )


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """The text of a token; bytes of incomplete characters become escapes, as in Python."""
    if token == tokenizer.end_of_text:
        return END_OF_TEXT
    return tokenizer.token_bytes[token].decode("utf-8", errors="backslashreplace")


def visible(token: str) -> str:
    """A token with symbols for white space and escapes for control characters."""
    return "".join(
        _NAMES.get(char) or (char if char.isprintable() else repr(char)[1:-1]) for char in token
    )


def line_of(text: bytes, place: int) -> int:
    """The number, from 1, of the line with the first word at or after a byte offset."""
    word = re.compile(rb"\S").search(text, place)
    return 1 + text.count(b"\n", 0, word.start() if word else place)
