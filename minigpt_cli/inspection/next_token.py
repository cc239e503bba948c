"""The distribution of the next token after a text, and how sampling settings change it."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from minigpt_cli.device import LESS_MEMORY, reraise_out_of_memory
from minigpt_cli.generation.sampling import Sampling, next_token_probabilities
from minigpt_cli.inspection.tokens import token_text
from minigpt_cli.model.gpt import GPT
from minigpt_cli.runs.checkpoint import Checkpoint

TEMPERATURES = (0.5, 1.0, 2.0)


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
    """One for each listed token."""
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
    checkpoint: Checkpoint, prompt: str, ids: Sequence[int], top: int, cuts: Sequence[Sampling] = ()
) -> NextToken:
    """Scores the next token at each of `TEMPERATURES`.

    Computed in fp32 on the CPU, so that one question has one answer.

    Args:
        checkpoint: a model and its tokenizer.
        prompt: the text.
        ids: its tokens, at least one; only the last `block_size` are read.
        top: number of tokens to list.
        cuts: one top-k or top-p each; their effect is reported, not applied.
    """
    ids = list(ids[-checkpoint.metadata.model.block_size :])
    logits = _logits(checkpoint.model, ids)
    order = logits[0].argsort(descending=True)[:top]
    choices = []
    for temperature in TEMPERATURES:
        probabilities = next_token_probabilities(logits, Sampling(temperature))[0]
        at = [replace(cut, temperature=temperature) for cut in cuts]
        reported = tuple(_cut(logits, probabilities, cut) for cut in at)
        choices.append(Choice(temperature, tuple(probabilities[order].tolist()), reported))
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


def _cut(logits: Tensor, probabilities: Tensor, cut: Sampling) -> Cut:
    kept = next_token_probabilities(logits, cut)[0] > 0
    setting = f"top-k {cut.top_k}" if cut.top_p is None else f"top-p {cut.top_p:g}"
    return Cut(setting, int(kept.sum()), float(probabilities[kept].sum()))
