"""The modern family: Qwen3 (Yang et al. 2025).

Rotary positions, RMSNorm, grouped-query attention with QK-norm, SwiGLU, no biases.
"""

import math

from torch import Tensor, nn

from minigpt_cli.config.schema import ModernConfig
from minigpt_cli.model.block import Attention, Axes, Block, Family, projects_to_residual
from minigpt_cli.model.kernels import swiglu
from minigpt_cli.model.layers import Dropout, Linear, RMSNorm
from minigpt_cli.model.positions import RotaryPositions

_BLOCKS = 8
"""Parts of the hidden units that are matrices of their own to Muon: less arithmetic for wide
layers, and a lower loss here (benchmarks/LOG.md). MuonBP (Khaled et al. 2025) has such blocks in
most steps."""


class ModernBlock(Block):
    """Grouped-query attention and a gated feed-forward layer, SwiGLU (Shazeer 2020)."""

    activation = staticmethod(swiglu)

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        C, F, eps = config.n_embd, config.hidden, config.norm_eps
        self.norm1 = RMSNorm(C, eps)
        self.attention = Attention(
            C, config.n_head, config.kv_heads, qkv_bias=config.qkv_bias, qk_norm=config.qk_norm,
            norm_eps=eps, head_dim=config.head_dim,
        )  # fmt: skip
        self.norm2 = RMSNorm(C, eps)
        blocks = _BLOCKS if F % _BLOCKS == 0 else 1
        self.gate_up = Linear(C, (F, F), bias=False, heads=(blocks, blocks))
        self.down = Linear(F, (C,), bias=False)
        self.dropout = Dropout(config.dropout)

    @property
    def expand(self) -> Linear:
        return self.gate_up


def _draw(name: str, weight: Tensor, config: ModernConfig) -> None:
    """Matrices keep the variance of their input; projections to the residual start at zero.

    Each block therefore starts as the identity. Embeddings have unit variance, and the head starts
    so small that every token is about equally likely.
    """
    if projects_to_residual(name):
        weight.zero_()
    elif name == "head.weight":
        nn.init.normal_(weight, std=0.001)
    elif name == "token_embedding.weight":
        nn.init.normal_(weight, std=0.02 if config.tie_embeddings else 1.0)
    else:
        bound = math.sqrt(3 / config.n_embd)
        nn.init.uniform_(weight, -bound, bound)


MODERN = Family(
    block=ModernBlock,
    norm=lambda config: RMSNorm(config.n_embd, config.norm_eps),
    positions=lambda config: RotaryPositions(config.head_dim, config.rope_theta, config.block_size),
    draw=_draw,
    axes=Axes(qkv="(H+2K)D", kv_head="K", expanded="2F", hidden="F"),
)
