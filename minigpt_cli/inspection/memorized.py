"""Is a model learning or copying? Its generated text, searched for in its training text."""

import re
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
from minigpt_cli.inspection.tokens import line_of
from minigpt_cli.model.gpt import GPT

COPIED = 20
"""Characters from which a passage counts as copied: texts by one author rarely share this many.

Of a script that writes a syllable or a word as one character, fewer (see `copied_length`)."""
_DENSE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
_PER_DENSE = 2.5
"""Letters of an alphabet that say about as much as one such character."""
_LOOKED_AT = 200_000
Verdict = Literal["writes", "copies in places", "copies", "cannot tell"]
# How much larger the copied share of generated text may be than that of unseen text.
_CHANCE, _MUCH = 0.05, 0.2
_REPETITIVE = 0.3
"""Above this share of unseen text found in the training text, the comparison says nothing."""


@dataclass(frozen=True)
class Copied:
    """A passage copied verbatim from the training text."""

    text: str
    line: int
    """The line of its first occurrence there, from 1."""
    times: int
    """How often it occurs there."""
    sample: int
    """The generated text that contains it, from 1."""


@dataclass(frozen=True)
class Measure:
    """How much of some texts occurs verbatim in another."""

    characters: int
    longest: int
    """Characters of the longest passage."""
    share: float
    """Share of the characters in copied passages of at least `Memorized.copied` characters."""


@dataclass(frozen=True)
class Memorized:
    """Generated text, compared with the training text."""

    samples: int
    tokens: int
    """Tokens per sample."""
    sampling: Sampling
    written: Measure
    unseen: Measure | None
    """The same measure for as much of the validation text; None if there is none."""
    passages: tuple[Copied, ...]
    """Longest first; passages that overlap or repeat part of a longer one are left out."""
    copied: int = COPIED
    """Characters from which a passage counts as copied."""

    @property
    def verdict(self) -> Verdict:
        """Judges by how much more is copied than unseen text shares with the training text."""
        unseen = self.unseen or Measure(0, self.copied, 0.0)
        more = self.written.share - unseen.share
        if more > _MUCH:
            return "copies"
        if more > _CHANCE or self.written.longest > 2 * max(self.copied, unseen.longest):
            return "copies in places"
        is_doubtful = unseen.share >= _REPETITIVE and self.written.share > _CHANCE
        return "cannot tell" if is_doubtful else "writes"


def memorized(
    model: GPT,
    dataset: Dataset,
    samples: int = 10,
    tokens: int = 500,
    sampling: Sampling | None = None,
    passages: int = 50,
) -> Memorized:
    """Generates texts without a prompt or dropout, and searches for them in the training text.

    Args:
        model: the model.
        dataset: the text it was trained on, and its tokenizer.
        samples: number of texts.
        tokens: tokens per text.
        sampling: how to choose tokens.
        passages: number of passages to keep.
    """
    tokenizer, sampling = dataset.tokenizer, sampling or Sampling()
    request = GenerationRequest([tokenizer.start_ids], tokens, sampling, num_samples=samples)
    pieces = generate_texts(ModelAndTokenizer(model, tokenizer), request)
    texts = ["".join(piece.text for piece in text) for text in zip(*pieces, strict=True)]
    learned = tokenizer.decode(dataset.tokens("train"))
    index, copied = TextIndex(learned), copied_length(learned)
    unseen = _cut_alike(tokenizer.decode(dataset.tokens("val")), texts)
    found = [list(index.passages(text)) for text in texts]
    return Memorized(
        samples=samples,
        tokens=tokens,
        sampling=sampling,
        written=_measure(texts, found, copied),
        unseen=_measure(unseen, [list(index.passages(t)) for t in unseen], copied)
        if unseen
        else None,
        passages=tuple(_longest(index, texts, found, passages)),
        copied=copied,
    )


def copied_length(text: str) -> int:
    """Characters from which a passage of a text counts as copied.

    20 in an alphabet, which is about four words; 8 where every character is Chinese, Japanese or
    Korean, which is a sentence.
    """
    letters = "".join(text[:_LOOKED_AT].split())
    dense = len(_DENSE.findall(letters)) / max(1, len(letters))
    return round(COPIED / (1 + (_PER_DENSE - 1) * dense))


class TextIndex:
    """Finds passages in a text by its suffix array (Manber and Myers 1990).

    Args:
        text: at least one character.
    """

    def __init__(self, text: str) -> None:
        self._raw = text.encode("utf-8", "replace")
        self._suffixes = divsufsort(self._raw)

    def passages(self, text: str) -> Iterator[tuple[int, int]]:
        """The passages of another text that occur in this one and cannot be extended.

        Yields:
            Start and end of each, in characters; both increase.
        """
        raw, reached, place = text.encode("utf-8", "replace"), 0, 0
        for start, char in enumerate(text):
            end = start + len(self._longest_prefix(raw[place:]))
            if end > max(start, reached):
                reached = end
                yield start, end
            place += len(char.encode("utf-8", "replace"))

    def first(self, passage: str) -> tuple[int, int]:
        """The line of the first occurrence of a passage, and the number of occurrences.

        Raises:
            ValueError: it does not occur.
        """
        raw = passage.encode()
        place, times = self._raw.index(raw), 0
        line = line_of(self._raw, place)
        while place >= 0:  # occurrences may overlap
            times += 1
            place = self._raw.find(raw, place + 1)
        return line, times

    def _longest_prefix(self, raw: bytes) -> str:
        """The longest prefix of another text, in whole characters, that occurs in this one."""
        # The suffixes that share the most with it are its neighbors in sorted order.
        place = bisect_left(self._suffixes, raw, key=lambda i: self._raw[i : i + len(raw)])
        neighbors = self._suffixes[max(0, place - 1) : place + 1].tolist()
        shared = max(_shared(raw, self._raw[i : i + len(raw)]) for i in neighbors)
        return raw[:shared].decode("utf-8", "ignore")


def _shared(one: bytes, other: bytes) -> int:
    """Length of the common prefix, in bytes."""
    length = min(len(one), len(other))
    first, second = (np.frombuffer(raw, np.uint8, length) for raw in (one, other))
    different = first != second
    return int(different.argmax()) if different.any() else length


def _cut_alike(text: str, others: Sequence[str]) -> list[str]:
    """Consecutive pieces of a text, each as long as one of the others, until it runs out."""
    pieces, place = [], 0
    for other in others:
        pieces.append(text[place : place + len(other)])
        place += len(other)
    return [piece for piece in pieces if piece]


def _measure(
    texts: Sequence[str], found: Sequence[Sequence[tuple[int, int]]], least: int
) -> Measure:
    characters, copied, longest = sum(map(len, texts)), 0, 0
    for passages in found:
        reached = 0
        for start, end in passages:
            longest = max(longest, end - start)
            if end - start >= least:
                copied += end - max(start, reached)
                reached = end
    return Measure(characters, longest, copied / max(1, characters))


def _longest(
    index: TextIndex, texts: Sequence[str], found: Sequence[Sequence[tuple[int, int]]], count: int
) -> Iterator[Copied]:
    """The longest passages, without those that overlap or repeat part of a longer one."""
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
