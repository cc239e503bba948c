"""Which token comes next: pure functions from logits to a distribution, and a draw from it.

Shapes: B texts side by side, V vocab.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt_cli.errors import ConfigError
from minigpt_cli.language import _

_AHEAD = 64
"""Places for which random numbers are drawn at once."""


@dataclass(frozen=True)
class Sampling:
    """How to choose the next token: the penalty comes first, then the others in this order."""

    temperature: float = 0.8
    """Divides the logits: below 1 safer, above 1 more varied; 0 always picks the most likely."""
    top_k: int | None = None
    """Only the k most likely tokens may be drawn (Fan et al. 2018)."""
    top_p: float | None = None
    """Only the most likely tokens that together reach this probability (Holtzman et al. 2020)."""
    min_p: float | None = None
    """Only tokens with at least this share of the highest probability (Nguyen et al. 2024)."""
    repetition_penalty: float = 1.0
    """Above 1, tokens already in the text become less likely (Keskar et al. 2019)."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises `ConfigError` for a setting outside its range."""
        temperature, penalty = self.temperature, self.repetition_penalty
        top_k, top_p, min_p = self.top_k, self.top_p, self.min_p
        for name, allowed, limits in (
            ("temperature", 0 <= temperature < math.inf, _(">= 0 (0: the most likely token)")),
            ("top_k", top_k is None or top_k >= 1, _(">= 1 (unset: no limit)")),
            ("top_p", top_p is None or 0 < top_p <= 1, _("> 0 and <= 1")),
            ("min_p", min_p is None or 0 <= min_p <= 1, _("from 0 to 1")),
            ("repetition_penalty", 0.01 <= penalty <= 100, _("from 0.01 to 100 (1: no penalty)")),
        ):
            if not allowed:
                raise ConfigError(
                    _("{name} must be {limits}, not {value}").format(
                        name=name, limits=limits, value=getattr(self, name)
                    )
                )


def generators(seed: int, count: int) -> list[torch.Generator]:
    """A random stream per sample; that of sample 3 does not depend on the number of samples.

    Its text then does not either, in fp32 (see `generate_tokens`).
    """
    return [
        torch.Generator().manual_seed((seed * 1_000_003 + sample) % 2**63)
        for sample in range(count)
    ]


def uniform_numbers(
    generators: Sequence[torch.Generator], starts: Sequence[int]
) -> Iterator[Tensor]:
    """Numbers to draw tokens with, for one place after another from the first start on.

    Each text has the first number of its own generator at its own start, and zeros before it.

    Yields:
        Numbers from 0 to below 1, (B, 1).
    """
    place = min(starts)
    while True:
        numbers = torch.zeros(_AHEAD, len(starts), 1, dtype=torch.float64)
        for row, (generator, start) in enumerate(zip(generators, starts, strict=True)):
            before = min(max(0, start - place), _AHEAD)
            numbers[before:, row, 0] = torch.rand(
                _AHEAD - before, generator=generator, dtype=torch.float64
            )
        yield from numbers
        place += _AHEAD


def sample(
    logits: Tensor, sampling: Sampling, uniform: Tensor, seen_mask: Tensor | None = None
) -> Tensor:
    """Draws one token per row.

    Args:
        logits: (B, V).
        sampling: how to choose.
        uniform: a number from 0 to below 1 for each row, (B, 1), in double precision.
        seen_mask: which tokens are already in each text, (B, V), for the repetition penalty.

    Returns:
        Token ids, (B,).
    """
    if sampling.temperature == 0:
        return penalize_repetition(logits, seen_mask, sampling.repetition_penalty).argmax(-1)
    probabilities = next_token_probabilities(logits, sampling, seen_mask)
    # Inverse transform sampling: the first token whose cumulative probability exceeds the number.
    cumulative = probabilities.cumsum(-1)
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0]


def next_token_probabilities(
    logits: Tensor, sampling: Sampling, seen_mask: Tensor | None = None
) -> Tensor:
    """The distribution that `sample` draws from, (B, V); its arguments are those of `sample`."""
    logits = penalize_repetition(logits, seen_mask, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    # Relative to their maximum and in double precision, no temperature is too small.
    logits = (logits - logits.amax(-1, keepdim=True)).double() / sampling.temperature
    if sampling.top_k is not None:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None:
        logits = keep_top_p(logits, sampling.top_p)
    if sampling.min_p is not None:
        logits = keep_min_p(logits, sampling.min_p)
    return logits.softmax(-1)


def penalize_repetition(logits: Tensor, seen_mask: Tensor | None, penalty: float) -> Tensor:
    """Divides positive logits of seen tokens and multiplies negative ones (Keskar et al. 2019)."""
    if seen_mask is None or penalty == 1.0:
        return logits
    penalized = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen_mask, penalized, logits)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Sets all but the k largest of each row to -inf; ties with the k-th are kept."""
    smallest = logits.topk(min(k, logits.size(-1))).values[:, -1:]
    return logits.masked_fill(logits < smallest, float("-inf"))


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Sets all but the smallest set with probability p to -inf (Holtzman et al. 2020)."""
    ordered, places = logits.softmax(-1).sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered  # probability of all more likely tokens
    drop = torch.zeros_like(before, dtype=torch.bool).scatter_(-1, places, before >= p)
    return logits.masked_fill(drop, float("-inf"))


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Sets all below p times the highest probability to -inf (Nguyen et al. 2024)."""
    probabilities = logits.softmax(-1)
    highest = probabilities.amax(-1, keepdim=True)
    return logits.masked_fill(probabilities < p * highest, float("-inf"))
