"""Which earlier tokens each attention head attends to while a model reads a text."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minigpt_cli.device import LESS_MEMORY, reraise_out_of_memory
from minigpt_cli.errors import ConfigError
from minigpt_cli.inspection.tokens import Window, window
from minigpt_cli.inspection.trace import WEIGHTS, TracedOp, traced_forward
from minigpt_cli.language import ngettext
from minigpt_cli.model.gpt import check_logits
from minigpt_cli.runs.checkpoint import Checkpoint


@dataclass(frozen=True)
class Head:
    """The weights of one head and their statistics; means are over all tokens but the first."""

    layer: int
    head: int
    """Layer and head count from 0, as in the names of the weights."""
    weights: NDArray[np.float32]
    """(T, T): row i has the weights of token i on tokens 0 to i, which sum to 1; then zeros."""
    distance: float
    """Mean distance in tokens, weighted by attention."""
    on_previous: float
    """Mean weight on the token just before."""
    on_first: float
    """Mean weight on the first token."""
    on_itself: float
    """Mean weight on the token itself."""
    entropy: float
    """Mean entropy in bits: 0 for a single token, log2(n) for n tokens with equal weights."""


@dataclass(frozen=True)
class Attention:
    """The requested heads."""

    window: Window
    heads: tuple[Head, ...]
    """Ordered by layer, then head."""


@reraise_out_of_memory(LESS_MEMORY)
def attention_maps(
    checkpoint: Checkpoint, text: str, layer: int | None = None, head: int | None = None
) -> Attention:
    """Reads a text and returns the attention weights, computed in the model's precision.

    Args:
        checkpoint: a model and its tokenizer.
        text: at least one character; only its last `block_size` tokens are read.
        layer: only this layer, from 0.
        head: only this head of each layer, from 0.

    Raises:
        ConfigError: the text is empty, or the layer or head does not exist.
        TokenizerError: the text contains characters that are not in the vocabulary.
        OutOfMemoryError: memory ran out.
    """
    config = checkpoint.metadata.model
    asked: tuple[tuple[Literal["layer", "head"], int | None, int], ...]
    asked = (("layer", layer, config.n_layer), ("head", head, config.n_head))
    for name, number, count in asked:
        if number is not None and not 0 <= number < count:
            raise ConfigError(_no_such(name, number, count))
    read, heads = window(checkpoint, text), []

    def record(op: TracedOp) -> None:
        if op.name != WEIGHTS or op.layer is None or layer not in (None, op.layer):
            return
        for number, weights in enumerate(op.outputs[0].tensor[0]):
            if head in (None, number):
                heads.append(_head(op.layer, number, weights.float().cpu()))

    device = checkpoint.model.head.weight.device
    ids = torch.tensor([read.ids], device=device)
    check_logits(traced_forward(checkpoint.model, ids, record))
    return Attention(read, tuple(heads))


def _head(layer: int, head: int, weights: Tensor) -> Head:
    T = len(weights)
    position = torch.arange(T)
    back = position[:, None] - position  # (T, T)
    rows = slice(min(1, T - 1), None)  # the first token can only attend to itself

    def mean(per_query: Tensor) -> float:
        return float(per_query[rows].mean())

    return Head(
        layer=layer,
        head=head,
        weights=weights.numpy(),
        distance=mean((weights * back).sum(-1)),
        on_previous=mean((weights * (back == 1)).sum(-1)),
        on_first=mean(weights[:, 0]),
        on_itself=mean(weights.diagonal()),
        entropy=mean(torch.special.entr(weights).sum(-1)) / float(np.log(2)),
    )


def _no_such(what: Literal["layer", "head"], number: int, count: int) -> str:
    if what == "layer":
        message = ngettext(
            "layer {number}: the model has {count} layer, 0",
            "layer {number}: the model has {count} layers, 0 to {last}",
            count,
        )
    else:
        message = ngettext(
            "head {number}: the model has {count} head, 0",
            "head {number}: the model has {count} heads, 0 to {last}",
            count,
        )
    return message.format(number=number, count=count, last=count - 1)
