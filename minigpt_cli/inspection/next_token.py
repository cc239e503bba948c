"""The distribution of the next token after a text, and how sampling settings change it."""

import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from minigpt_cli.device import LESS_MEMORY, reraise_out_of_memory
from minigpt_cli.generation.sampling import Sampling, next_token_probabilities
from minigpt_cli.inspection.tokens import token_text
from minigpt_cli.model.gpt import GPT
from minigpt_cli.runs.checkpoint import Checkpoint


@dataclass(frozen=True)
class Cut:
    """How far a setting would narrow the choice."""

    setting: str
    """`top-k 10` or `top-p 0.9`."""
    kept: int
    """Number of tokens that could still be drawn."""
    probability: float
    """Their total probability before the cut."""


@dataclass(frozen=True)
class Choice:
    """The distribution at one temperature."""

    temperature: float
    probabilities: tuple[float, ...]
    """One for each listed token; 0 if it cannot be drawn."""
    cuts: tuple[Cut, ...]


@dataclass(frozen=True)
class NextToken:
    """The most likely next tokens at several temperatures."""

    prompt: str
    tokens: tuple[str, ...]
    """Most likely first."""
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
    """Scores the next token at half the temperature, the temperature and twice the temperature.

    Computed in fp32 on the CPU, so that one question has one answer.

    Args:
        checkpoint: a model and its tokenizer.
        prompt: the text.
        ids: its tokens, at least one; only the last `block_size` are read.
        sampling: shapes the distribution.
        top: number of tokens to list.
        cuts: further settings, one top-k or top-p each; their effect is reported, not applied.
    """
    ids = list(ids[-checkpoint.metadata.model.block_size :])
    logits = _logits(checkpoint.model, ids)
    seen_mask = torch.zeros(logits.shape, dtype=torch.bool)
    seen_mask.index_fill_(1, torch.tensor(ids), True)
    order = logits[0].argsort(descending=True)[:top]
    choices = []
    for at in _three_temperatures(sampling):
        probabilities = next_token_probabilities(logits, at, seen_mask)[0]
        reported = tuple(_cut(logits, seen_mask, probabilities, at, cut) for cut in cuts)
        choices.append(Choice(at.temperature, tuple(probabilities[order].tolist()), reported))
    tokens = tuple(token_text(checkpoint.tokenizer, token) for token in order.tolist())
    return NextToken(prompt, tokens, tuple(choices))


@torch.inference_mode()
def _logits(model: GPT, ids: Sequence[int]) -> Tensor:
    """Scores of the token after `ids`, (1, V)."""
    if model.head.weight.device.type != "cpu":
        model = copy.deepcopy(model).cpu()
    with model.evaluating(torch.float32):
        logits: Tensor = model(torch.tensor([ids]), cache=model.new_cache(1, len(ids)))
    return logits[:, -1]


def _cut(
    logits: Tensor, seen_mask: Tensor, probabilities: Tensor, at: Sampling, cut: Sampling
) -> Cut:
    narrowed = replace(at, top_k=cut.top_k, top_p=cut.top_p)
    kept = next_token_probabilities(logits, narrowed, seen_mask)[0] > 0
    setting = f"top-k {cut.top_k}" if cut.top_p is None else f"top-p {cut.top_p:g}"
    return Cut(setting, int(kept.sum()), float(probabilities[kept].sum()))


def _three_temperatures(sampling: Sampling) -> list[Sampling]:
    middle = sampling.temperature or 1.0
    temperatures = (
        0.5 * middle if sampling.temperature else 0.0,
        middle,
        min(2 * middle, sys.float_info.max),
    )
    return [replace(sampling, temperature=temperature) for temperature in temperatures]
