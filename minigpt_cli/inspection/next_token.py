"""What may follow a text: the distribution of the next token, and what settings make of it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from minigpt_cli.device import LESS_MEMORY, reraise_out_of_memory
from minigpt_cli.generation.sampling import Sampling, next_token_probabilities
from minigpt_cli.generation.tokens import generate_tokens
from minigpt_cli.inspection.tokens import token_text
from minigpt_cli.runs.checkpoint import Checkpoint


@dataclass(frozen=True)
class Cut:
    """How far a setting would narrow the choice."""

    setting: str
    """`top-k 10` or `top-p 0.9`."""
    kept: int
    """Tokens that could still be drawn."""
    probability: float
    """What these have together, before the cut."""


@dataclass(frozen=True)
class Choice:
    """The distribution at one temperature."""

    temperature: float
    probabilities: tuple[float, ...]
    """Of the tokens that are listed; 0 for what cannot be drawn."""
    cuts: tuple[Cut, ...]


@dataclass(frozen=True)
class NextToken:
    """The likeliest next tokens at several temperatures."""

    prompt: str
    tokens: tuple[str, ...]
    """Likeliest first."""
    choices: tuple[Choice, ...]


@reraise_out_of_memory(LESS_MEMORY)
def next_token(
    checkpoint: Checkpoint,
    prompt: str,
    ids: Sequence[int],
    sampling: Sampling,
    top: int,
    cuts: Sequence[Sampling] = (),
) -> NextToken:
    """Scores what may follow, at half the temperature, the temperature and twice the temperature.

    Args:
        checkpoint: the model and its tokenizer.
        prompt: the text.
        ids: its tokens, at least one; of many, the last `block_size`.
        sampling: shapes the distribution.
        top: how many tokens to list.
        cuts: further settings, a top-k or a top-p each: what they would keep is told and not done.
    """
    ids = list(ids[-checkpoint.metadata.model.block_size :])
    (step,) = generate_tokens(checkpoint.model, [ids], 1, sampling)
    seen = torch.zeros(step.logits.shape, dtype=torch.bool).index_fill_(1, torch.tensor(ids), True)
    order = step.logits[0].argsort(descending=True)[:top]
    choices = []
    for at in _three(sampling):
        whole = next_token_probabilities(step.logits, at, seen)[0]
        told = tuple(_cut(step.logits, seen, whole, at, cut) for cut in cuts)
        choices.append(Choice(at.temperature, tuple(whole[order].tolist()), told))
    tokens = tuple(token_text(checkpoint.tokenizer, token) for token in order.tolist())
    return NextToken(prompt, tokens, tuple(choices))


def _cut(logits: Tensor, seen: Tensor, whole: Tensor, at: Sampling, cut: Sampling) -> Cut:
    narrowed = replace(at, top_k=cut.top_k, top_p=cut.top_p)
    kept = next_token_probabilities(logits, narrowed, seen)[0] > 0
    setting = f"top-k {cut.top_k}" if cut.top_p is None else f"top-p {cut.top_p:g}"
    return Cut(setting, int(kept.sum()), float(whole[kept].sum()))


def _three(sampling: Sampling) -> list[Sampling]:
    middle = sampling.temperature or 1.0
    temperatures = (
        0.5 * middle if sampling.temperature else 0.0,
        middle,
        min(2 * middle, sys.float_info.max),
    )
    return [replace(sampling, temperature=temperature) for temperature in temperatures]
