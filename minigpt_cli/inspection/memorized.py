"""Is a model learning or copying: what it writes, searched for in the text that it learned from."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydivsufsort import divsufsort  # type: ignore[import-untyped]

from minigpt_cli.data.dataset import Dataset
from minigpt_cli.generation.sampling import Sampling
from minigpt_cli.generation.text import ModelAndTokenizer, generate_texts
from minigpt_cli.generation.tokens import GenerationRequest
from minigpt_cli.inspection.lines import line_of
from minigpt_cli.model.gpt import GPT

COPIED = 20
"""Characters of a passage that counts as copied: two texts of one author seldom share as many."""
Verdict = Literal["writes", "copies in places", "copies"]
# By how much more than unseen text of the author the written one may stand in copied passages.
_CHANCE, _MUCH = 0.05, 0.2


@dataclass(frozen=True)
class Copied:
    """A passage that stands verbatim in the training text."""

    text: str
    line: int
    """Where it stands there first, from 1."""
    times: int
    """How often it stands there."""
    sample: int
    """Which written text holds it, from 1."""


@dataclass(frozen=True)
class Measure:
    """How much of some texts stands verbatim in another."""

    characters: int
    longest: int
    """Characters of the longest passage."""
    share: float
    """Of the characters: those in passages of `COPIED` characters or more."""


@dataclass(frozen=True)
class Memorized:
    """What a model wrote, compared with the text that it learned from."""

    samples: int
    tokens: int
    """Of each sample."""
    sampling: Sampling
    written: Measure
    unseen: Measure | None
    """As much of the validation text, or all there is, by the same author; None without any."""
    passages: tuple[Copied, ...]
    """The longest, longest first; none overlaps a longer one, or says what a longer one says."""

    @property
    def verdict(self) -> Verdict:
        """Copying is what goes beyond the words that any text shares with others like it."""
        unseen = self.unseen or Measure(0, COPIED, 0.0)
        more = self.written.share - unseen.share
        if more > _MUCH:
            return "copies"
        if more > _CHANCE or self.written.longest > 2 * max(COPIED, unseen.longest):
            return "copies in places"
        return "writes"


def memorized(
    model: GPT,
    dataset: Dataset,
    samples: int = 10,
    tokens: int = 500,
    sampling: Sampling | None = None,
    passages: int = 50,
) -> Memorized:
    """Lets a model write and looks for it in its training text.

    Args:
        model: writes without dropout, whatever mode it is in.
        dataset: the text that it was trained on, and its tokenizer.
        samples: texts to write, each from an empty prompt.
        tokens: of each.
        sampling: how to choose them.
        passages: how many to keep.
    """
    tokenizer, sampling = dataset.tokenizer, sampling or Sampling()
    request = GenerationRequest([tokenizer.start_ids], tokens, sampling, num_samples=samples)
    pieces = generate_texts(ModelAndTokenizer(model, tokenizer), request)
    texts = ["".join(piece.text for piece in text) for text in zip(*pieces, strict=True)]
    index = TextIndex(tokenizer.decode(dataset.tokens("train")))
    unseen = _cut_alike(tokenizer.decode(dataset.tokens("val")), texts)
    found = [list(index.passages(text)) for text in texts]
    return Memorized(
        samples=samples,
        tokens=tokens,
        sampling=sampling,
        written=_measure(texts, found),
        unseen=_measure(unseen, [list(index.passages(t)) for t in unseen]) if unseen else None,
        passages=tuple(_longest(index, texts, found, passages)),
    )


class TextIndex:
    """Finds what stands in a text, by its suffix array (Manber and Myers 1990).

    Args:
        text: at least one character.
    """

    def __init__(self, text: str) -> None:
        self._raw = text.encode("utf-8", "replace")
        self._suffixes = divsufsort(self._raw)

    def passages(self, text: str) -> Iterator[tuple[int, int]]:
        """The passages of another text that stand in this one and cannot be made longer.

        Yields:
            Where each begins and ends, in characters; both grow from one to the next.
        """
        raw, reached, place = text.encode("utf-8", "replace"), 0, 0
        for start, char in enumerate(text):
            end = start + len(self._longest_prefix(raw[place:]))
            if end > max(start, reached):
                reached = end
                yield start, end
            place += len(char.encode("utf-8", "replace"))

    def first(self, passage: str) -> tuple[int, int]:
        """The line where a passage stands first, and how often it stands in the text.

        Raises:
            ValueError: it does not.
        """
        raw = passage.encode()
        place, times = self._raw.index(raw), 0
        line = line_of(self._raw, place)
        while place >= 0:  # passages may overlap themselves
            times += 1
            place = self._raw.find(raw, place + 1)
        return line, times

    def _longest_prefix(self, raw: bytes) -> str:
        """The most of a text's beginning, in whole characters, that stands in this one."""
        # Of all suffixes, those that share most with it are its neighbors in their order.
        place = bisect_left(self._suffixes, raw, key=lambda i: self._raw[i : i + len(raw)])
        neighbors = self._suffixes[max(0, place - 1) : place + 1].tolist()
        shared = max(_shared(raw, self._raw[i : i + len(raw)]) for i in neighbors)
        return raw[:shared].decode("utf-8", "ignore")


def _shared(one: bytes, other: bytes) -> int:
    """How many of their first bytes are the same."""
    length = min(len(one), len(other))
    first, second = (np.frombuffer(raw, np.uint8, length) for raw in (one, other))
    different = first != second
    return int(different.argmax()) if different.any() else length


def _cut_alike(text: str, others: Sequence[str]) -> list[str]:
    """Pieces of a text as long as others, one after another while it lasts."""
    pieces, place = [], 0
    for other in others:
        pieces.append(text[place : place + len(other)])
        place += len(other)
    return [piece for piece in pieces if piece]


def _measure(texts: Sequence[str], found: Sequence[Sequence[tuple[int, int]]]) -> Measure:
    characters, copied, longest = sum(map(len, texts)), 0, 0
    for passages in found:
        reached = 0
        for start, end in passages:
            longest = max(longest, end - start)
            if end - start >= COPIED:
                copied += end - max(start, reached)
                reached = end
    return Measure(characters, longest, copied / max(1, characters))


def _longest(
    index: TextIndex,
    texts: Sequence[str],
    found: Sequence[Sequence[tuple[int, int]]],
    count: int,
) -> Iterator[Copied]:
    """The longest passages: what overlaps or repeats a longer one is left out."""
    every = [(i, start, end) for i, passages in enumerate(found) for start, end in passages]
    taken: list[tuple[int, int, int]] = []
    shown: list[str] = []
    for i, start, end in sorted(every, key=lambda passage: passage[1] - passage[2]):
        if len(shown) == count:
            return
        if any(i == j and start < other_end and other < end for j, other, other_end in taken):
            continue
        taken.append((i, start, end))
        text = texts[i][start:end]
        if not any(text in longer for longer in shown):
            shown.append(text)
            line, times = index.first(text)
            yield Copied(text, line, times, i + 1)
