"""A token per byte."""

import json

import numpy as np
from numpy.typing import NDArray

from minigpt_cli.tokenizer.base import Tokenizer


class ByteTokenizer(Tokenizer):
    """The 256 bytes of UTF-8: no text is unknown, and a Chinese character is three tokens.

    Args:
        end_of_text: whether the vocabulary has an end-of-text token.
    """

    kind = "byte"

    def __init__(self, end_of_text: bool = False) -> None:
        self.token_bytes = [bytes([i]) for i in range(256)]
        if end_of_text:
            self._add_end_of_text()

    def encode_array(self, text: str) -> NDArray[np.uint32]:
        data = text.encode("utf-8", errors="replace")
        return np.frombuffer(data, dtype=np.uint8).astype(np.uint32)

    def to_json(self) -> str:
        return json.dumps({"kind": self.kind, **self._saved_end()})
