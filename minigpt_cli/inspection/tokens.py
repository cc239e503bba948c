"""A text as the tokens that a model sees at once."""

import re
from dataclasses import dataclass

from minigpt_cli.errors import ConfigError
from minigpt_cli.runs.checkpoint import Checkpoint
from minigpt_cli.tokenizer.base import Tokenizer

_NAMES = {" ": "␣", "\n": "↵", "\t": "⇥"}


@dataclass(frozen=True)
class Window:
    """The last tokens of a text, at most `block_size` of them."""

    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    """The text of each (see `token_text`)."""
    left_out: int
    """Tokens before them that the model does not see."""


def window(checkpoint: Checkpoint, text: str) -> Window:
    """Cuts a text into tokens and keeps what fits into the model's window.

    Raises:
        ConfigError: the text is empty.
        TokenizerError: it holds characters that the tokenizer never saw.
    """
    if not text:
        raise ConfigError("the text is empty; give at least one character")
    tokenizer = checkpoint.tokenizer
    ids = tokenizer.encode(text)
    kept = ids[-checkpoint.metadata.model.block_size :]
    return Window(
        ids=tuple(kept),
        tokens=tuple(token_text(tokenizer, i) for i in kept),
        left_out=len(ids) - len(kept),
    )


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """What a token stands for; bytes that are no whole character become escapes as in Python."""
    return tokenizer.token_bytes[token].decode("utf-8", errors="backslashreplace")


def visible(token: str) -> str:
    """A token as it can be told from others: white space has signs, control characters escapes."""
    return "".join(
        _NAMES.get(char) or (char if char.isprintable() else repr(char)[1:-1]) for char in token
    )


def line_of(text: bytes, place: int) -> int:
    """The number, from 1, of the line with the first word at or after a byte offset."""
    word = re.compile(rb"\S").search(text, place)
    return 1 + text.count(b"\n", 0, word.start() if word else place)
