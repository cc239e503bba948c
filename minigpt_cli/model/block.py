"""A transformer block, and what a family of models decides about it.

The training pass (`Block.forward`), decoding (`generation.decoder`) and tracing
(`inspection.trace`) are composed from the same parts: `norm1`, `attention`, `norm2`, `expand`,
`activation`, `down`.

Shapes: B batch, T time, C n_embd, H n_head, K n_kv_head, D head_dim, F hidden.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minigpt_cli.model import fused
from minigpt_cli.model.attention import causal_attention
from minigpt_cli.model.kernels import EPSILON, apply_rotary, by_hand
from minigpt_cli.model.layers import Dropout, Linear, RMSNorm
from minigpt_cli.model.positions import Positions, Rotary

Heads = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values."""
Store = Callable[[Tensor, Tensor], None]
"""Takes the keys and values that a layer computed, (B, K, T, D) each."""


class Attention(nn.Module):
    """Causal self-attention; several queries may share a key (Ainslie et al. 2023).

    Args:
        n_embd: C.
        n_head: H, the number of query heads.
        n_kv_head: K, the number of key/value heads; divides H.
        bias: whether the output projection has a bias.
        qkv_bias: whether queries, keys and values have one.
        qk_norm: whether queries and keys are normalized per head (Henry et al. 2020).
        norm_eps: added to the mean square there.
        head_dim: D; C / H by default.
        dropout: share of attention weights dropped during training.
    """

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        n_kv_head: int,
        *,
        bias: bool = False,
        qkv_bias: bool = False,
        qk_norm: bool = False,
        norm_eps: float = EPSILON,
        head_dim: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.n_head, self.n_kv_head, self.head_dim = n_head, n_kv_head, head_dim or n_embd // n_head
        self.dropout = dropout
        q_size, kv_size = n_head * self.head_dim, n_kv_head * self.head_dim
        # To Muon each head of queries and keys is a matrix of its own, as in modded-nanogpt's later
        # records: smaller products, and no worse a loss.
        self.qkv = Linear(
            n_embd, (q_size, kv_size, kv_size), qkv_bias, heads=(n_head, n_kv_head, 1)
        )
        self.q_norm = RMSNorm(self.head_dim, norm_eps) if qk_norm else None
        self.k_norm = RMSNorm(self.head_dim, norm_eps) if qk_norm else None
        self.proj = Linear(q_size, (n_embd,), bias)

    def split(self, qkv: Tensor) -> Heads:
        """Views of (B, T, (H+2K) D): (B, T, H, D), (B, T, K, D) and (B, T, K, D)."""
        B, T, _ = qkv.shape
        heads = qkv.view(B, T, -1, self.head_dim)  # (B, T, H+2K, D)
        q, k, v = torch.split(heads, [self.n_head, self.n_kv_head, self.n_kv_head], dim=2)
        return q, k, v

    def heads(self, x: Tensor, rotary: Rotary | None) -> Heads:
        """Projects (B, T, C) to (B, H, T, D), (B, K, T, D) and (B, K, T, D)."""
        qkv = self.qkv(x)
        if by_hand(qkv) and fused.suits(qkv, self.head_dim // (1 if rotary is None else 2)):
            return self._fused_heads(qkv, rotary)
        q, k, v = self.split(qkv)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if rotary is not None:
            q, k = apply_rotary(q, rotary), apply_rotary(k, rotary)
        return q, k, v

    def _fused_heads(self, qkv: Tensor, rotary: Rotary | None) -> Heads:
        """The rest of `heads` in one pass."""
        weights: tuple[Tensor | None, Tensor | None] = (None, None)
        eps = EPSILON
        if self.q_norm is not None and self.k_norm is not None:
            q, k = (norm.weight.to(qkv.dtype) for norm in (self.q_norm, self.k_norm))
            weights, eps = (q, k), self.q_norm.eps
        heads: Heads = fused.Heads.apply(  # type: ignore[no-untyped-call]
            qkv, *weights, eps, rotary, self.n_head, self.n_kv_head
        )
        return heads


class Block(nn.Module):
    """Pre-norm attention and feed-forward layers, each added to the residual stream.

    A family's block sets the parts below; `expand` names its first feed-forward layer.
    """

    norm1: nn.Module
    attention: Attention
    norm2: nn.Module
    activation: Callable[[Tensor], Tensor]
    down: Linear
    dropout: Dropout

    @property
    def expand(self) -> Linear:
        """The feed-forward layer before the activation."""
        raise NotImplementedError

    def heads(self, x: Tensor, rotary: Rotary | None) -> Heads:
        """(B, T, C) to queries, (B, H, T, D), keys and values, (B, K, T, D) each."""
        return self.attention.heads(self.norm1(x), rotary)

    def feed_forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        hidden = self.activation(self.expand(self.norm2(x)))  # (B, T, F)
        out: Tensor = self.down(hidden)
        return out

    def forward(self, x: Tensor, rotary: Rotary | None, store: Store | None) -> Tensor:
        q, k, v = self.heads(x, rotary)
        if store is not None:
            store(k, v)
        dropout = self.attention.dropout if self.training else 0.0
        attn_out = causal_attention(q, k, v, dropout).flatten(2)  # (B, T, H D)
        x = x + self.dropout(self.attention.proj(attn_out))
        out: Tensor = x + self.dropout(self.feed_forward(x))
        return out


@dataclass(frozen=True)
class Axes:
    """A family's sizes in letters, to label shapes with."""

    qkv: str
    """Output of `attention.qkv`."""
    kv_head: str
    """Number of key/value heads."""
    expanded: str
    """Output of `expand`."""
    hidden: str
    """Output of the activation."""


@dataclass(frozen=True)
class Family:
    """What tells one family from another; each function takes that family's config."""

    block: Callable[[Any], Block]
    norm: Callable[[Any], nn.Module]
    """The norm before the head."""
    positions: Callable[[Any], Positions]
    draw: Callable[[str, Tensor, Any], None]
    """Draws a new matrix, given its name in the model."""
    axes: Axes


def projects_to_residual(name: str) -> bool:
    """Whether a weight's output is added to the residual stream."""
    return name.endswith(("proj.weight", "down.weight"))
