"""Which earlier tokens each head looks at, when a model reads a text."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minigpt_cli.device import LESS_MEMORY, reraise_out_of_memory
from minigpt_cli.errors import ConfigError
from minigpt_cli.inspection.tokens import Window, window
from minigpt_cli.inspection.trace import WEIGHTS, TracedOp, traced_forward
from minigpt_cli.runs.checkpoint import Checkpoint


@dataclass(frozen=True)
class Head:
    """The weights of one head, and what they come to; means are over all tokens but the first."""

    layer: int
    head: int
    """Both numbered from 0, as in the names of the weights."""
    weights: NDArray[np.float32]
    """Row i is how token i looks at tokens 0 to i, (T, T): it sums to 1, and is 0 after i."""
    distance: float
    """Mean number of tokens it looks back."""
    on_previous: float
    """Mean weight on the token just before."""
    on_first: float
    """Mean weight on the first token."""
    on_itself: float
    entropy: float
    """Bits: 0 looks at a single token, log2 of n at n tokens alike."""


@dataclass(frozen=True)
class Attention:
    """The heads that were asked for."""

    window: Window
    heads: tuple[Head, ...]
    """Layer by layer."""


@reraise_out_of_memory(LESS_MEMORY)
def attention_maps(
    checkpoint: Checkpoint, text: str, layer: int | None = None, head: int | None = None
) -> Attention:
    """Reads a text and keeps the attention weights, as the model uses them, in its own precision.

    Args:
        checkpoint: the model and its tokenizer.
        text: of a long one, the last `block_size` tokens.
        layer: only this one, from 0.
        head: only this one of each layer, from 0.

    Raises:
        ConfigError: the text is empty, or there is no such layer or head.
        TokenizerError: the text holds characters the model never saw.
    """
    config = checkpoint.metadata.model
    for option, number, count in (("layer", layer, config.n_layer), ("head", head, config.n_head)):
        if number is not None and not 0 <= number < count:
            have = f"{option}s, 0 to {count - 1}" if count > 1 else f"{option}, 0"
            raise ConfigError(
                f"--{option} {number}: the model has {count} {have}; take one of them"
            )
    read, heads = window(checkpoint, text), []

    def record(op: TracedOp) -> None:
        if op.name != WEIGHTS or op.layer is None or layer not in (None, op.layer):
            return
        for number, weights in enumerate(op.outputs[0].tensor[0]):
            if head in (None, number):
                heads.append(_head(op.layer, number, weights.float().cpu()))

    device = checkpoint.model.head.weight.device
    traced_forward(checkpoint.model, torch.tensor([read.ids], device=device), record)
    return Attention(read, tuple(heads))


def _head(layer: int, head: int, weights: Tensor) -> Head:
    T = len(weights)
    position = torch.arange(T)
    back = position[:, None] - position  # (T, T)
    rows = slice(min(1, T - 1), None)  # the first token can only look at itself

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
