"""A sample of a large text, spread evenly over it."""

from collections.abc import Iterable, Iterator

BLOCK = 1 << 16
"""Characters that are taken, or left out, together."""


def spread(chunks: Iterable[str], size: int, total: int) -> Iterator[str]:
    """Takes blocks of a text at even distances, without the words that their edges cut.

    What is taken depends on the text and the two numbers, not on how the text is given.

    Args:
        chunks: the text, in pieces.
        size: about how much of the text to take, in any unit.
        total: size of the text, in the same unit.
    """
    for number, block in enumerate(_blocks(chunks)):
        if (number + 1) * size // total > number * size // total:
            first, last = block.find(" ") + 1, block.rfind(" ")
            yield block[first:last] if first < last else block


def _blocks(chunks: Iterable[str]) -> Iterator[str]:
    held = ""
    for chunk in chunks:
        held += chunk
        whole = len(held) // BLOCK * BLOCK
        for start in range(0, whole, BLOCK):
            yield held[start : start + BLOCK]
        held = held[whole:]
    if held:
        yield held
