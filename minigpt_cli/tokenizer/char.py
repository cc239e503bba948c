"""A token per character."""

import json
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from minigpt_cli.tokenizer.base import Tokenizer, unknown_characters

_UNKNOWN = np.iinfo(np.uint32).max


class CharTokenizer(Tokenizer):
    """The distinct characters of a text; a character's id is its place when they are sorted.

    So the ids depend on which characters occur, not on their order in the text.
    `CharTokenizer("hello").encode("hello")` is `[1, 0, 2, 2, 3]`.

    Args:
        text: any text that contains every character of the vocabulary.
        end_of_text: whether the vocabulary has an end-of-text token.
    """

    kind = "char"

    def __init__(self, text: Iterable[str], end_of_text: bool = False) -> None:
        self.itos = sorted(set(text))
        self.stoi = {char: i for i, char in enumerate(self.itos)}
        self.token_bytes = [char.encode() for char in self.itos]
        points = [ord(char) for char in self.itos]
        self._id_of_point = np.full(max(points, default=0) + 2, _UNKNOWN, dtype=np.uint32)
        self._id_of_point[points] = np.arange(len(points), dtype=np.uint32)
        # ASCII sorts first, so its ids are bytes too; the rest of the table is never looked up.
        self._ascii = "".join(char for char in self.itos if char.isascii()).encode()
        self._id_of_byte = bytes.maketrans(self._ascii, bytes(range(len(self._ascii))))
        if end_of_text:
            self._add_end_of_text()

    def encode_array(self, text: str) -> NDArray[np.uint32]:
        return self._encode(text, before=0)

    def encode_chunks(self, chunks: Iterable[str]) -> Iterator[NDArray[np.uint32]]:
        before = 0
        for chunk in chunks:
            yield self._encode(chunk, before)
            before += len(chunk)

    def _encode(self, text: str, before: int) -> NDArray[np.uint32]:
        if text.isascii() and not (data := text.encode()).translate(None, delete=self._ascii):
            return np.frombuffer(data.translate(self._id_of_byte), np.uint8).astype(np.uint32)
        # The table's last entry stands for all characters beyond it, which are unknown.
        ids = self._id_of_point.take(code_points(text), mode="clip")
        if int(ids.max(initial=0)) == _UNKNOWN:
            unknown = np.flatnonzero(ids == _UNKNOWN)
            raise unknown_characters(text, unknown.tolist(), self.kind, self.stoi, before)
        return ids

    def to_json(self) -> str:
        saved = {"kind": self.kind, "vocabulary": "".join(self.itos)}
        return json.dumps({**saved, **self._saved_end()})


def code_points(text: str) -> NDArray[np.uint16] | NDArray[np.uint32]:
    """The number of each character of a text, (T,)."""
    data = text.encode("utf-16-le", "surrogatepass")
    if len(data) == 2 * len(text):  # no character takes two units
        return np.frombuffer(data, dtype="<u2")
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
