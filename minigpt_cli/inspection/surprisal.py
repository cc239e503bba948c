"""Which passages of a text a model finds hard: the surprisal of every token, in bits.

The surprisal of a token is -log2 of the probability that the model gave it (Shannon 1948).
"""

import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile

import numpy as np
from numpy.typing import NDArray

from minigpt_cli.data.progress import Progress, no_progress
from minigpt_cli.errors import CorpusError
from minigpt_cli.evaluation import counted_bytes, predict_tokens
from minigpt_cli.inspection.tokens import line_of
from minigpt_cli.language import _, mark
from minigpt_cli.model.gpt import GPT
from minigpt_cli.tokenizer.base import Tokenizer

LEVELS = (1.0, 2.0, 4.0, 8.0)
"""Bits at which a token counts as harder: one in 2, 4, 16 or 256 equally likely ones."""

# Bytes of a passage: shorter ones say little, longer ones cannot be read at a glance.
_SHORTEST, _LONGEST = 60, 240
_LINE_END = re.compile(rb"(?:\r?\n)+")  # and the blank lines after it
_SENTENCE_END = re.compile(rb"[.!?](?=\s)|" + "|".join("。！？…").encode())


def level_names() -> list[str]:
    """Names of the ranges between the levels, from 0 up."""
    between = [
        _("{least:g} to {most:g}").format(least=least, most=most)
        for least, most in pairwise(LEVELS)
    ]
    lowest = _("under {most:g} bit").format(most=LEVELS[0])
    return [lowest, *between, _("{least:g} and more").format(least=LEVELS[-1])]


@dataclass(frozen=True, slots=True)
class Scored:
    """One token, or several where only several make whole characters."""

    text: str
    bits: float | None
    """Surprisal; None for the first token of a text, which nothing predicts."""

    @property
    def level(self) -> int:
        """How many of `LEVELS` it reaches."""
        return bisect_right(LEVELS, self.bits or 0.0)


@dataclass(frozen=True)
class Passage:
    """A few lines or sentences, short enough to read at a glance."""

    line: int
    """The line it begins on, from 1."""
    bits_per_byte: float
    parts: tuple[Scored, ...]

    @property
    def hardest(self) -> Scored:
        """The part with the most bits."""
        return max(self.parts, key=lambda part: part.bits or 0.0)


@dataclass(frozen=True)
class Surprisal:
    """Surprisal of a text: totals, and the hardest passages."""

    tokens: int
    """Tokens predicted: all but the first."""
    bits: float
    bits_per_byte: float
    unknown_tokens: int
    """How many of them are `<unk>`; their bytes do not count as text."""
    context: int
    """The least number of tokens that the model saw before each, except near the beginning."""
    characters: int
    passages: int
    hardest: tuple[Passage, ...]
    """The hardest passages, in bits per byte, hardest first."""
    beginning: tuple[Scored, ...]
    """The text, or its first part."""


def surprisal(
    model: GPT,
    tokenizer: Tokenizer,
    text: str,
    hardest: int = 50,
    beginning: int = 100_000,
    context: int | None = None,
    progress: Progress = no_progress,
) -> Surprisal:
    """Measures a text token by token and passage by passage.

    The windows of `evaluate` do not overlap: its tokens have between 1 and `block_size` others
    before them, and every window would begin with a hard passage. Here the windows overlap, so that
    each token has at least half a window before it.

    Args:
        model: predicts without dropout, even in training mode.
        tokenizer: the model's.
        text: what to read.
        hardest: number of passages to keep.
        beginning: number of characters of the text to keep, approximately.
        context: least number of tokens before each; half a window by default. `evaluate` gives 1.
        progress: called with the bytes of text read so far.

    Raises:
        CorpusError: the text has fewer than two tokens.
        TokenizerError: it contains characters outside the vocabulary.
    """
    context = max(1, model.config.block_size // 2) if context is None else context
    ids = tokenizer.encode_array(text)
    if len(ids) < 2:
        raise CorpusError(
            _("the text has {number} tokens and needs at least 2; pass a longer text").format(
                number=len(ids)
            )
        )
    ends = tokenizer.text_lengths(text).cumsum()  # bytes of the text
    bits = np.zeros(len(ids), dtype=np.float32)
    done = 1
    for predicted in predict_tokens(model, ids, context=context):
        bits[done : done + len(predicted.nats)] = predicted.nats.numpy() / math.log(2)
        done += len(predicted.nats)
        progress(mark("Predicting"), int(ends[done - 1]), int(ends[-1]))
    counted = counted_bytes(tokenizer).numpy().astype(np.int32)[ids]
    counted[0] = 0
    total = float(bits.sum(dtype=np.float64))
    unknown = tokenizer.unknown_id
    scored = _ScoredText(text, ends, bits, counted)
    return Surprisal(
        tokens=len(ids) - 1,
        bits=total,
        bits_per_byte=total / max(1, int(counted.sum())),
        unknown_tokens=0 if unknown is None else int((ids[1:] == unknown).sum()),
        context=context,
        characters=len(text),
        passages=len(scored.passages),
        hardest=scored.hardest(hardest),
        beginning=scored.parts(0, scored.part_at(len(text[:beginning].encode("utf-8", "replace")))),
    )


def trimmed(parts: Sequence[Scored]) -> Sequence[Scored]:
    """Drops white space at the end, unless it was a surprise."""
    blank = list(takewhile(lambda part: not part.text.strip() and not part.level, reversed(parts)))
    return parts[: len(parts) - len(blank)]


class _ScoredText:
    """A text in parts of whole characters, with the bits of each. Offsets are in bytes.

    Args:
        text: N tokens.
        ends: where each token ends, (N,).
        bits: surprisal of each, (N,).
        counted: how many bytes of each count as text, (N,).
    """

    def __init__(
        self,
        text: str,
        ends: NDArray[np.int64],
        bits: NDArray[np.float32],
        counted: NDArray[np.int32],
    ) -> None:
        self._raw = text.encode("utf-8", "replace")
        octets = np.frombuffer(self._raw, dtype=np.uint8)
        assert ends[-1] == len(self._raw)
        starts = np.concatenate(([0], ends[:-1]))
        firsts = np.flatnonzero((octets[starts] & 0xC0) != 0x80)  # tokens that begin a character
        self._bits = np.add.reduceat(bits, firsts)
        self._bytes = np.add.reduceat(counted, firsts)
        self._starts = np.append(starts[firsts], len(self._raw))
        self.passages = np.array([0, *self._cuts()])
        """Indices of the parts that begin a passage."""

    def part_at(self, place: int) -> int:
        """The first part that begins at or after an offset."""
        return int(np.searchsorted(self._starts, place))

    def parts(self, first: int, end: int) -> tuple[Scored, ...]:
        places = self._starts[first : end + 1].tolist()
        bits: list[float | None] = self._bits[first:end].tolist()
        if first == 0:
            bits[0] = None
        return tuple(
            Scored(self._raw[start:stop].decode(), cost)
            for (start, stop), cost in zip(pairwise(places), bits, strict=True)
        )

    def hardest(self, count: int) -> tuple[Passage, ...]:
        """The passages with the most bits per byte, hardest first."""
        costs = np.add.reduceat(self._bits.astype(np.float64), self.passages)
        costs /= np.maximum(1, np.add.reduceat(self._bytes, self.passages))
        ends = np.append(self.passages[1:], len(self._bits))
        return tuple(
            Passage(
                line=line_of(self._raw, int(self._starts[self.passages[i]])),
                bits_per_byte=float(costs[i]),
                parts=self.parts(self.passages[i], ends[i]),
            )
            for i in np.argsort(-costs, kind="stable")[:count]
        )

    def _cuts(self) -> Iterator[int]:
        """The first part of every passage but the first."""
        place = 0
        while len(self._raw) - place > _SHORTEST:
            part = self.part_at(self._passage_end(place))
            place = int(self._starts[part])
            if len(self._raw) - place < _SHORTEST:
                return  # the rest belongs to the last passage
            yield part

    def _passage_end(self, start: int) -> int:
        """Where a passage that begins here ends: after a line, else a sentence, else a word."""
        least, most = start + _SHORTEST - 1, start + _LONGEST
        for ending in (_LINE_END, _SENTENCE_END):
            if found := ending.search(self._raw, least, most):
                return found.end()
        place = self._raw.rfind(b" ", least, most)
        return place + 1 if place >= 0 else min(most, len(self._raw))
