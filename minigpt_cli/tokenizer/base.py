"""What every tokenizer can do."""

import codecs
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from minigpt_cli.config.choices import TokenizerKind
from minigpt_cli.errors import TokenizerError


class Tokenizer(ABC):
    """A vocabulary of byte strings, and a way to cut text into them.

    Every token stands for a fixed sequence of bytes (UTF-8, perhaps only a part of a character),
    so decoding, streaming and bits per byte work the same for all kinds.
    """

    kind: ClassVar[TokenizerKind]

    token_bytes: list[bytes]
    """What each token id stands for."""

    unknown_id: int | None = None
    """The id of `<unk>`, where there is one."""

    @property
    def vocab_size(self) -> int:
        return len(self.token_bytes)

    @abstractmethod
    def encode_array(self, text: str) -> NDArray[np.uint32]:
        """Cuts a text into token ids.

        Raises:
            TokenizerError: the text holds something this vocabulary cannot express.
        """

    @abstractmethod
    def to_json(self) -> str:
        """The whole tokenizer; `tokenizer_from_json` makes it again."""

    def text_lengths(self, text: str) -> NDArray[np.int32]:
        """How many bytes of the text each token of `encode_array` covers."""
        lengths = np.array([len(token) for token in self.token_bytes], dtype=np.int32)
        return lengths[self.encode_array(text)]

    def encode(self, text: str) -> list[int]:
        """Like `encode_array`, as a list."""
        ids: list[int] = self.encode_array(text).tolist()
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Joins the tokens' text; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self.token_bytes[i] for i in ids).decode("utf-8", errors="replace")

    def encode_chunks(self, chunks: Iterable[str]) -> Iterator[NDArray[np.uint32]]:
        """Encodes a text that arrives in pieces; where they were cut makes no difference."""
        for chunk in chunks:
            yield self.encode_array(chunk)

    @property
    def start_ids(self) -> list[int]:
        """What to begin from when there is no prompt: a line break, or else the first token."""
        newline = self.token_bytes.index(b"\n") if b"\n" in self.token_bytes else 0
        return [newline]


class StreamDecoder:
    """Decodes tokens one at a time, holding back characters that are not complete yet.

    The pieces joined, with `flush` at the end, are what `Tokenizer.decode` makes of all ids.
    """

    def __init__(self, token_bytes: Sequence[bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The characters that this token completes, perhaps none."""
        return self._decoder.decode(self._token_bytes[token])

    def flush(self) -> str:
        """What was held back: U+FFFD for a character that never came to its end."""
        return self._decoder.decode(b"", final=True)


def unknown_characters(
    text: str, unknown: Sequence[int], kind: str, before: int = 0
) -> TokenizerError:
    """The error for characters outside a vocabulary, given their places in the text.

    Args:
        text: the piece that was encoded.
        unknown: places in it.
        kind: of the tokenizer.
        before: characters of the whole text ahead of this piece.
    """
    seen = dict.fromkeys(text[place] for place in unknown)
    shown = ", ".join(f"{char!r} (U+{ord(char):04X})" for char in list(seen)[:5])
    more = f" and {len(seen) - 5} more" if len(seen) > 5 else ""
    return TokenizerError(
        f"the {kind} tokenizer never saw {shown}{more}, first at character "
        f"{before + unknown[0] + 1} of the text; leave {'it' if len(seen) == 1 else 'them'} out, "
        "or take a byte or bpe tokenizer, which know every character"
    )
