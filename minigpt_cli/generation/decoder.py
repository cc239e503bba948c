"""Reading one token at a time, in as few operations as possible.

`GPT.forward` reads a prompt and fills the cache; from there `Decoder` computes the same for one new
token of each text. Matrices are kept in the model's compute dtype, everything else in fp32: for a
single token that costs nothing, and attention is much faster.
`tests/generation/test_decoder.py` compares every step with a forward pass over the whole text.

Shapes: B texts side by side, C n_embd, H heads, K key/value heads, D head_dim, V vocab.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt_cli.model.block import Block, Heads
from minigpt_cli.model.gpt import GPT
from minigpt_cli.model.kernels import EPSILON, apply_rotary
from minigpt_cli.model.kv_cache import KVCache
from minigpt_cli.model.layers import Linear, RMSNorm
from minigpt_cli.model.positions import Rotary
from minigpt_cli.private_torch import int8_product, packed_linear


class Decoder:
    """Scores the token that follows one more token of each text.

    Args:
        model: its matrices may be copied, so create a new decoder after more training.
    """

    def __init__(self, model: GPT) -> None:
        self._model, dtype = model, model.compute_dtype
        self._layers = [_Layer(block, dtype) for block in model.blocks]
        self._head = _Matrix(model.norm, model.head, dtype)

    def new_cache(self, batch: int, most: int | None = None) -> KVCache:
        """As from `GPT.new_cache`."""
        return self._model.new_cache(batch, most)

    @torch.inference_mode()
    def read(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Reads one token of each text.

        Args:
            tokens: ids, (B,).
            cache: the tokens read before; these are added.

        Returns:
            Logits, (B, V).
        """
        model, position = self._model, cache.length
        slot, filled = position % cache.window, min(position + 1, cache.window)
        x = F.embedding(tokens, model.token_embedding.weight)
        x = model.position_embedding.add(x, position, 1)  # (B, C)
        rotary = model.position_embedding.rotary(position, 1, torch.float32, tokens.device)
        for layer, keys, values in zip(self._layers, cache.keys, cache.values, strict=True):
            q, k, v = layer.heads(x, rotary)
            keys[:, :, slot], values[:, :, slot] = k, v
            attn_out = F.scaled_dot_product_attention(
                q.unsqueeze(2),  # (B, H, 1, D)
                keys[:, :, :filled],
                values[:, :, :filled],
                enable_gqa=k.size(1) != q.size(1),
            )
            x = x + layer.proj(attn_out.flatten(1))  # (B, H, 1, D) to (B, H D) to (B, C)
            x = x + layer.feed_forward(x)
        cache.length += 1
        return self._head(x)


class _Matrix:
    """A linear layer, with the norm before it if there is one; fp32 in and out."""

    def __init__(self, norm: nn.Module | None, linear: Linear, dtype: torch.dtype) -> None:
        self._norm, self._bias, self._product = norm, linear.bias, product(linear, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        if isinstance(self._norm, RMSNorm):
            x = unit_rms(x, self._norm.eps) * self._norm.weight
        elif self._norm is not None:
            x = self._norm(x)
        out = self._product(x).float()
        return out if self._bias is None else out + self._bias


def product(linear: Linear, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """A function that multiplies by a layer's matrix, (B, in) to (B, out), with the best kernel."""
    if linear.int8 is not None and linear.in_features % 16 == 0:
        numbers, scale = linear.int8
        return lambda x: int8_product(x.bfloat16(), numbers, scale)
    weight = linear.weight.detach().to(dtype)
    if weight.device.type == "cpu" and dtype == torch.bfloat16:
        multiply = packed_linear(weight)
        if multiply is not None:
            return lambda x: multiply(x.bfloat16())
    return lambda x: F.linear(x.to(dtype), weight)


class _Layer:
    """What `Block` computes, from the same parts, for one token of each text."""

    def __init__(self, block: nn.Module, dtype: torch.dtype) -> None:
        assert isinstance(block, Block)
        attention = block.attention
        self._sizes = [attention.n_head, attention.n_kv_head, attention.n_kv_head]
        self._head_dim = attention.head_dim
        self._gain: Tensor | None = None
        self._eps = EPSILON
        if attention.q_norm is not None and attention.k_norm is not None:
            self._eps = attention.q_norm.eps
            q, k = (norm.weight.detach() for norm in (attention.q_norm, attention.k_norm))
            q, k = q.expand(attention.n_head, -1), k.expand(attention.n_kv_head, -1)
            self._gain = torch.cat((q, k))  # (H + K, D)
        self._qkv = _Matrix(block.norm1, attention.qkv, dtype)
        self.proj = _Matrix(None, attention.proj, dtype)
        self._expand = _Matrix(block.norm2, block.expand, dtype)
        self._activation = block.activation
        self._down = _Matrix(None, block.down, dtype)

    def heads(self, x: Tensor, rotary: Rotary | None) -> Heads:
        """(B, C) to (B, H, D), (B, K, D) and (B, K, D); queries and keys go through together."""
        qkv = self._qkv(x).view(x.size(0), -1, self._head_dim)  # (B, H+2K, D)
        if self._gain is None and rotary is None:
            q, k, v = torch.split(qkv, self._sizes, dim=1)
            return q, k, v
        n_head, n_kv_head, _ = self._sizes
        qk = qkv[:, : n_head + n_kv_head]
        if self._gain is not None:
            qk = unit_rms(qk, self._eps) * self._gain
        if rotary is not None:
            qk = apply_rotary(qk, rotary)
        return qk[:, :n_head], qk[:, n_head:], qkv[:, n_head + n_kv_head :]

    def feed_forward(self, x: Tensor) -> Tensor:
        """(B, C) to (B, C)."""
        return self._down(self._activation(self._expand(x)))


def unit_rms(x: Tensor, eps: float = EPSILON) -> Tensor:
    """RMSNorm over the last axis without its weight; faster than PyTorch's for few rows."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x * norm.square_().div_(x.size(-1)).add_(eps).rsqrt_()
