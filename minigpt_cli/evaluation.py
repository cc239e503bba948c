"""How well a model predicts a text: over every token, deterministic, comparable."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt_cli.dataset import Tokens
from minigpt_cli.device import out_of_memory_explained
from minigpt_cli.errors import CorpusError
from minigpt_cli.model import GPT
from minigpt_cli.tokenizer import Tokenizer

# Bounds the memory of one forward pass: tokens, and numbers in the logits.
_TOKENS_PER_PASS = 16_384
_LOGITS_PER_PASS = 1 << 25


@dataclass(frozen=True)
class Evaluation:
    """A model's score on a text."""

    tokens: int
    """Tokens predicted: all but the first."""
    loss: float
    """Mean cross-entropy, nats per token."""
    bits_per_byte: float
    """Cross-entropy per byte of text, in bits: comparable between tokenizers."""
    accuracy: float
    """Share of tokens that were the likeliest."""
    unknown_tokens: int
    """How many of them were `<unk>`; their bytes are not counted as text."""

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))


@out_of_memory_explained("take a model with a smaller window (block_size), or a larger machine")
def evaluate(
    model: GPT, tokenizer: Tokenizer, tokens: Tokens, max_tokens: int | None = None
) -> Evaluation:
    """Scores a model on tokens, in windows of `block_size` side by side.

    Every token but the first is predicted exactly once, from the tokens before it in its window.

    Args:
        model: predicts without dropout, whatever mode it is in.
        tokenizer: says how many bytes each token stands for.
        tokens: ids of one text.
        max_tokens: read no more than about this many, in windows spread evenly over the text.

    Raises:
        CorpusError: there are fewer than two tokens.
        OutOfMemoryError: memory ran out.
    """
    if len(tokens) < 2:
        raise CorpusError(
            f"the text to evaluate on has {len(tokens)} tokens and needs at least 2; "
            "give a longer text, or a larger data.val_fraction"
        )
    byte_lengths = torch.tensor([len(token) for token in tokenizer.token_bytes])
    if tokenizer.unknown_id is not None:
        byte_lengths[tokenizer.unknown_id] = 0
    nats, correct, count, text_bytes, unknown = 0.0, 0, 0, 0, 0
    with model.evaluating(), torch.inference_mode():
        for x, y in _windows(tokens, model, max_tokens):
            device = model.head.weight.device
            logits = model(x.to(device)).flatten(0, 1)  # (B*T, V)
            targets = y.flatten().to(device)
            nats += F.cross_entropy(logits, targets, reduction="none").cpu().double().sum().item()
            correct += int((logits.argmax(-1) == targets).sum().item())
            count += y.numel()
            text_bytes += int(byte_lengths[y].sum().item())
            if tokenizer.unknown_id is not None:
                unknown += int((y == tokenizer.unknown_id).sum().item())
    return Evaluation(
        tokens=count,
        loss=nats / count,
        bits_per_byte=nats / math.log(2) / max(1, text_bytes),
        accuracy=correct / count,
        unknown_tokens=unknown,
    )


def _windows(tokens: Tokens, model: GPT, max_tokens: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets, (B, T) each; the last window of the text may be shorter."""
    T = model.config.block_size
    predicted = len(tokens) - 1
    starts = np.arange(0, predicted - T + 1, T)
    if max_tokens is not None and len(starts) * T > max_tokens:
        starts = starts[np.linspace(0, len(starts) - 1, max(1, max_tokens // T)).astype(int)]
        rest = 0
    else:
        rest = predicted % T
    per_pass = max(1, min(_TOKENS_PER_PASS, _LOGITS_PER_PASS // model.vocab_size) // T)
    for i in range(0, len(starts), per_pass):
        windows = tokens[starts[i : i + per_pass, None] + np.arange(T + 1)].astype(np.int64)
        both = torch.from_numpy(windows)
        yield both[:, :-1], both[:, 1:]
    if rest:
        last = torch.from_numpy(tokens[predicted - rest :].astype(np.int64))
        yield last[None, :-1], last[None, 1:]
