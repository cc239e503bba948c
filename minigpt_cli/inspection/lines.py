"""Places in a text as its readers count them."""

import re

_WORD = re.compile(rb"\S")


def line_of(text: bytes, place: int) -> int:
    """The number, from 1, of the line with the first word at or behind a place."""
    word = _WORD.search(text, place)
    return 1 + text.count(b"\n", 0, word.start() if word else place)
