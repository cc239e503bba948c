"""The classic family: GPT-2 (Radford et al. 2019).

Learned positions, LayerNorm, a feed-forward layer four times as wide, biases.
"""

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from minigpt_cli.config.schema import ClassicConfig
from minigpt_cli.model.block import Attention, Axes, Block, Family, projects_to_residual
from minigpt_cli.model.layers import Dropout, LayerNorm, Linear
from minigpt_cli.model.positions import LearnedPositions

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
}


class ClassicBlock(Block):
    """Multi-head attention and a feed-forward layer with GELU or ReLU."""

    def __init__(self, config: ClassicConfig) -> None:
        super().__init__()
        C, H, bias = config.n_embd, config.n_head, config.bias
        self.norm1 = LayerNorm(C, bias, config.norm_eps)
        self.attention = Attention(
            C, H, H, bias=bias, qkv_bias=bias and config.qkv_bias, dropout=config.dropout
        )
        self.norm2 = LayerNorm(C, bias, config.norm_eps)
        self.up = Linear(C, (config.hidden,), bias)
        self.down = Linear(config.hidden, (C,), bias)
        self.activation = _ACTIVATIONS[config.activation]()
        self.dropout = Dropout(config.dropout)

    @property
    def expand(self) -> Linear:
        return self.up


def _draw(name: str, weight: Tensor, config: ClassicConfig) -> None:
    """Normal with deviation 0.02; projections to the residual are smaller by √(2 n_layer)."""
    scale = math.sqrt(2 * config.n_layer) if projects_to_residual(name) else 1.0
    nn.init.normal_(weight, std=0.02 / scale)


CLASSIC = Family(
    block=ClassicBlock,
    norm=lambda config: LayerNorm(config.n_embd, config.bias, config.norm_eps),
    positions=lambda config: LearnedPositions(config.block_size, config.n_embd),
    draw=_draw,
    axes=Axes(qkv="3C", kv_head="H", expanded="4C", hidden="4C"),
)
