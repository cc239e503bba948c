"""How well a model predicts a text: over every token, deterministic and comparable.

Shapes: B batch, T time, V vocab, N tokens.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt_cli.data.progress import Progress, no_progress
from minigpt_cli.data.tokens.token_files import Tokens
from minigpt_cli.device import reraise_out_of_memory
from minigpt_cli.errors import CorpusError, NonFiniteError
from minigpt_cli.language import _, mark
from minigpt_cli.model.gpt import GPT, check_logits
from minigpt_cli.tokenizer.base import Tokenizer

# Limits on the memory of one forward pass: tokens, and entries in the logits.
_TOKENS_PER_PASS = 16_384
_LOGITS_PER_PASS = 1 << 25
# The target of a token that is only read as context, not scored.
_CONTEXT = -100


@dataclass(frozen=True)
class Evaluation:
    """A model's score on a text."""

    tokens: int
    """Number of predicted tokens: all but the first."""
    loss: float
    """Mean cross-entropy, nats per token."""
    bits_per_byte: float
    """Cross-entropy per byte of text, in bits: comparable between tokenizers."""
    accuracy: float
    """Fraction of tokens that the model found most likely."""
    unknown_tokens: int
    """Number of `<unk>` tokens; their bytes do not count as text."""

    @property
    def perplexity(self) -> float:
        """The exponential of the loss (Jelinek et al. 1977)."""
        return math.exp(min(self.loss, 700.0))


class Sharing(Protocol):
    """Several processes that evaluate one model together."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def in_lockstep(self) -> bool:
        """Whether all must make the same number of forward passes."""
        ...

    def sums(self, numbers: Sequence[float]) -> list[float]:
        """Each number summed over all processes."""
        ...


@reraise_out_of_memory(
    mark("use a model with a smaller window (block_size), or a machine with more memory")
)
def evaluate(
    model: GPT,
    tokenizer: Tokenizer,
    tokens: Tokens,
    max_tokens: int | None = None,
    progress: Progress = no_progress,
    sharing: Sharing | None = None,
) -> Evaluation:
    """Scores a model on a text, in adjacent windows of `block_size`.

    Every token but the first is predicted exactly once, from the tokens before it in its window.

    Args:
        model: predicts without dropout.
        tokenizer: gives the number of bytes of each token.
        tokens: ids of one text, (N,).
        max_tokens: read about this many at most, in windows spread evenly over the text.
        progress: called with the number of tokens predicted so far, and of all.
        sharing: the processes that share the forward passes; all get the same result.

    Raises:
        CorpusError: there are fewer than two tokens.
        NonFiniteError: the model computes NaN or infinity.
        OutOfMemoryError: memory ran out.
    """
    byte_lengths = counted_bytes(tokenizer)
    nats, correct, count, text_bytes, unknown = 0.0, 0, 0, 0, 0
    total = min(len(tokens) - 1, max_tokens or len(tokens))
    processes = 1 if sharing is None else sharing.size
    try:
        for predicted in predict_tokens(model, tokens, max_tokens, sharing=sharing):
            nats += predicted.nats.double().sum().item()
            correct += int(predicted.correct.sum().item())
            count += len(predicted.ids)
            text_bytes += int(byte_lengths[predicted.ids].sum().item())
            if tokenizer.unknown_id is not None:
                unknown += int((predicted.ids == tokenizer.unknown_id).sum().item())
            progress(mark("Evaluating"), min(total, count * processes), total)
    except NonFiniteError:
        if sharing is None:
            raise
        nats = math.nan  # told to the others, who wait for these numbers
    if sharing is not None:
        numbers = sharing.sums([nats, correct, count, text_bytes, unknown])
        if math.isnan(nats := numbers[0]):
            raise NonFiniteError
        correct, count, text_bytes, unknown = map(int, numbers[1:])
    return Evaluation(
        tokens=count,
        loss=nats / count,
        bits_per_byte=nats / math.log(2) / max(1, text_bytes),
        accuracy=correct / count,
        unknown_tokens=unknown,
    )


def counted_bytes(tokenizer: Tokenizer) -> Tensor:
    """The number of bytes of each token, (V,); 0 for `<unk>` and the end of text."""
    lengths = torch.tensor([len(token) for token in tokenizer.token_bytes])
    for token in (tokenizer.unknown_id, tokenizer.end_of_text):
        if token is not None:
            lengths[token] = 0
    return lengths


@dataclass(frozen=True)
class Predicted:
    """Tokens in text order, and how well the model predicted them, (N,) each."""

    ids: Tensor
    nats: Tensor
    """Negative log-probability of each token."""
    correct: Tensor
    """Whether the token was the most likely one."""


def predict_tokens(
    model: GPT,
    tokens: Tokens,
    max_tokens: int | None = None,
    context: int = 1,
    sharing: Sharing | None = None,
) -> Iterator[Predicted]:
    """Predicts every token but the first exactly once, pass by pass.

    Args:
        model: predicts without dropout.
        tokens: ids of one text.
        max_tokens: read about this many at most, in windows spread evenly over the text.
        context: the fewest tokens to read before each predicted one, from 1 (adjacent windows) to
            `block_size`; at the beginning of the text there are fewer.
        sharing: the processes among which the forward passes are dealt out.

    Yields:
        The predictions of one forward pass; of this process's own.

    Raises:
        CorpusError: there are fewer than two tokens.
    """
    if len(tokens) < 2:
        raise CorpusError(
            _(
                "the text to evaluate on has {number} tokens and needs at least 2; give a "
                "longer text, or a larger data.val_fraction"
            ).format(number=len(tokens)),
            settings=("data.corpus", "data.val_fraction"),
        )
    with model.evaluating():
        if sharing is None:
            for x, y in _windows(tokens, model, max_tokens, context, 1):
                yield _predict(model, x, y.flatten())
            return
        passes = _windows(tokens, model, max_tokens, context, sharing.size)
        for number, (x, y) in enumerate(_padded(passes, sharing)):
            if number % sharing.size == sharing.rank:
                # Tensors of inference mode cannot be gathered again afterwards.
                yield _predict(model, x, y.flatten(), inference=not sharing.in_lockstep)


def _padded(
    passes: Iterator[tuple[Tensor, Tensor]], sharing: Sharing
) -> Iterator[tuple[Tensor, Tensor]]:
    """The passes; in lockstep, with some at the end that score nothing, as many for each."""
    count, x = 0, torch.zeros(1, 1, dtype=torch.int64)
    for x, y in passes:
        yield x, y
        count += 1
    for _number in range(-count % sharing.size if sharing.in_lockstep else 0):
        yield x[:1], torch.full_like(x[:1], _CONTEXT)


@torch.no_grad()
def _predict(model: GPT, x: Tensor, targets: Tensor, inference: bool = True) -> Predicted:
    counted = targets != _CONTEXT
    device = model.head.weight.device
    with torch.inference_mode(inference):
        logits = model(x.to(device)).flatten(0, 1)  # (B*T, V)
        targets = targets.to(device)
        nats = F.cross_entropy(logits, targets, reduction="none", ignore_index=_CONTEXT).cpu()
        check_logits(nats)
        correct = (logits.argmax(-1) == targets).cpu()
        return Predicted(targets.cpu()[counted], nats[counted], correct[counted])


def _windows(
    tokens: Tokens, model: GPT, max_tokens: int | None, context: int, processes: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets, (B, T) each; the last window of the text may be shorter.

    With several processes, passes are smaller where otherwise some would have none.
    """
    T = model.config.block_size
    predicted = len(tokens) - 1
    overlap = context - 1
    starts = np.arange(0, predicted - T + 1, T - overlap)
    if max_tokens is not None and len(starts) * T > max_tokens:
        starts = starts[np.linspace(0, len(starts) - 1, max(1, max_tokens // T)).astype(int)]
        rest = 0
    else:
        rest = predicted - (starts[-1] + T if len(starts) else 0)
    per_pass = max(1, min(_TOKENS_PER_PASS, _LOGITS_PER_PASS // model.vocab_size) // T)
    per_pass = min(per_pass, -(-len(starts) // processes) or 1)
    for i in range(0, len(starts), per_pass):
        batch = starts[i : i + per_pass]
        windows = torch.from_numpy(tokens[batch[:, None] + np.arange(T + 1)].astype(np.int64))
        x, y = windows[:, :-1], windows[:, 1:].clone()
        y[int(batch[0] == 0) :, :overlap] = _CONTEXT  # predicted in the previous window
        yield x, y
    if rest:
        read = overlap if len(starts) else 0
        last = torch.from_numpy(tokens[predicted - rest - read :].astype(np.int64))
        x, y = last[None, :-1], last[None, 1:].clone()
        y[:, :read] = _CONTEXT
        yield x, y
