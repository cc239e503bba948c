"""Which token comes next: pure functions from logits to a distribution, and a draw from it.

Shapes: B texts side by side, V vocab.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt_cli.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: the penalty first, then the others in this order."""

    temperature: float = 0.8
    """Divides the logits: below 1 bolder about the likely, above 1 wilder; 0 takes the best."""
    top_k: int | None = None
    """Only the k likeliest tokens may be drawn."""
    top_p: float | None = None
    """Only the likeliest tokens that together reach this probability may be drawn."""
    min_p: float | None = None
    """Only tokens at least so likely, as a share of the likeliest, may be drawn."""
    repetition_penalty: float = 1.0
    """Makes tokens that stand in the text already less likely above 1, more likely below."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: one is outside its range.
        """
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(
                f"--temperature {self.temperature}: must be 0 (always the likeliest) or more"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"--top-k {self.top_k}: must be 1 or more; leave it out for no limit")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"--top-p {self.top_p}: must be above 0 and at most 1")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ConfigError(f"--min-p {self.min_p}: must be from 0 to 1")
        if not 0.01 <= self.repetition_penalty <= 100:
            raise ConfigError(
                f"--repetition-penalty {self.repetition_penalty}: must be from 0.01 to 100; 1 "
                "leaves all as it is"
            )


def generators(seed: int, count: int) -> list[torch.Generator]:
    """A stream of random numbers for each sample: the third of eight is the third of four."""
    return [
        torch.Generator().manual_seed((seed * 1_000_003 + sample) % 2**63)
        for sample in range(count)
    ]


def sample(
    logits: Tensor,
    sampling: Sampling,
    generators: Sequence[torch.Generator],
    seen: Tensor | None = None,
) -> Tensor:
    """Draws one token per row.

    Args:
        logits: (B, V).
        sampling: how to choose.
        generators: one per row; each gives one uniform number.
        seen: which tokens stand in each text already, (B, V), for the repetition penalty.

    Returns:
        Token ids, (B,).
    """
    if sampling.temperature == 0:
        return penalize_repetition(logits, seen, sampling.repetition_penalty).argmax(-1)
    probabilities = next_token_probabilities(logits, sampling, seen)
    uniform = torch.stack([torch.rand(1, generator=g, dtype=torch.float64) for g in generators])
    # Inverse transform sampling: the first token whose cumulative probability passes the number.
    cumulative = probabilities.cumsum(-1)
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0]


def next_token_probabilities(
    logits: Tensor, sampling: Sampling, seen: Tensor | None = None
) -> Tensor:
    """The distribution that `sample` draws from, (B, V); its arguments are those of `sample`."""
    logits = penalize_repetition(logits, seen, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    # Against their maximum and in double precision no temperature, however small, overflows.
    logits = (logits - logits.amax(-1, keepdim=True)).double() / sampling.temperature
    if sampling.top_k is not None:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None:
        logits = keep_top_p(logits, sampling.top_p)
    if sampling.min_p is not None:
        logits = keep_min_p(logits, sampling.min_p)
    return logits.softmax(-1)


def penalize_repetition(logits: Tensor, seen: Tensor | None, penalty: float) -> Tensor:
    """Divides positive logits of tokens seen before, and multiplies negative ones (Keskar 2019)."""
    if seen is None or penalty == 1.0:
        return logits
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """All but the k largest of each row become -inf (ties with the k-th stay)."""
    smallest = logits.topk(min(k, logits.size(-1))).values[:, -1:]
    return logits.masked_fill(logits < smallest, float("-inf"))


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """All but the smallest set that reaches probability p become -inf (Holtzman et al. 2020)."""
    ordered, places = logits.softmax(-1).sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered  # probability of everything likelier
    drop = torch.zeros_like(before, dtype=torch.bool).scatter_(-1, places, before >= p)
    return logits.masked_fill(drop, float("-inf"))


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """All below p times the likeliest's probability become -inf (Nguyen et al. 2024)."""
    probabilities = logits.softmax(-1)
    return logits.masked_fill(
        probabilities < p * probabilities.amax(-1, keepdim=True), float("-inf")
    )
