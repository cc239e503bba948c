"""Reading one token at a time, in as few operations as can be.

`GPT.forward` reads a prompt and fills the cache; from there on `Decoder` computes the same for one
new token of each text. Matrices are kept in the dtype of the model's computation, everything else
is fp32: for a single token that is no slower, and attention is much faster.
`tests/test_decoding.py` holds every step against a forward pass over the whole text.

Shapes: B texts side by side, C n_embd, H heads, K key/value heads, D head_dim, V vocab.
"""

import platform
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt_cli.model.gpt import GPT, ClassicBlock, Linear, ModernBlock, RMSNorm
from minigpt_cli.model.kernels import EPSILON, apply_rotary, swiglu
from minigpt_cli.model.kv_cache import KVCache

_int8_product = torch.ops.aten._weight_int8pack_mm  # noqa: SLF001 - it has no other name

Heads = tuple[Tensor, Tensor, Tensor]
"""Query, key and value of one token, (B, H or K, D) each."""
Turn = tuple[Tensor, Tensor]
"""Cosines and sines of its position, (1, D) each."""


class Decoder:
    """Scores the token that follows one more token of each text.

    Args:
        model: its matrices may be copied: after training on, make a new decoder.
    """

    def __init__(self, model: GPT) -> None:
        self._model, dtype = model, model.compute_dtype
        self._layers = [_layer(block, dtype) for block in model.blocks]
        self._head = _Matrix(model.norm, model.head, dtype)

    @torch.inference_mode()
    def read(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Reads one token of each text.

        Args:
            tokens: ids, (B,).
            cache: what was read before; it takes the tokens in.

        Returns:
            Logits, (B, V).
        """
        model, position = self._model, cache.length
        slot, held = position % cache.window, min(position + 1, cache.window)
        x = F.embedding(tokens, model.token_embedding.weight)  # (B, C)
        turn = None
        if model.has_relative_positions:
            turn = model.rotary(position, 1, torch.float32, tokens.device)
        else:
            x = x + model.position_embedding.weight[position]
        for layer, keys, values in zip(self._layers, cache.keys, cache.values, strict=True):
            q, k, v = layer.heads(x, turn)
            keys[:, :, slot], values[:, :, slot] = k, v
            mixed = F.scaled_dot_product_attention(
                q.unsqueeze(2),
                keys[:, :, :held],
                values[:, :, :held],
                enable_gqa=k.size(1) != q.size(1),
            )
            x = x + layer.proj(mixed.flatten(1))
            x = x + layer.feed_forward(x)
        cache.length += 1
        return self._head(x)


class _Matrix:
    """A linear layer, with the norm before it if there is one; takes and gives fp32."""

    def __init__(self, norm: nn.Module | None, linear: Linear, dtype: torch.dtype) -> None:
        self._norm, self._bias, self._product = norm, linear.bias, product(linear, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        if isinstance(self._norm, RMSNorm):
            x = unit_rms(x) * self._norm.weight
        elif self._norm is not None:
            x = self._norm(x)
        out = self._product(x).float()
        return out if self._bias is None else out + self._bias


def product(linear: Linear, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Multiplies by the matrix of a layer, (B, in) to (B, out), by the fastest kernel for it."""
    if linear.int8 is not None and linear.in_features % 16 == 0:  # it reads 16 at a time
        numbers, scale = linear.int8
        return lambda x: _int8_product(x.bfloat16(), numbers, scale)
    weight = linear.weight.detach().to(dtype)
    if weight.device.type == "cpu" and dtype == torch.bfloat16 and _onednn_has_bf16():
        # Laid out once as oneDNN wants it, instead of anew for every token.
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)  # noqa: SLF001
        multiply = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001 - as PyTorch's compiler does
        return lambda x: multiply(x.bfloat16(), packed, None, "none", [], "")
    return lambda x: F.linear(x.to(dtype), weight)


def _onednn_has_bf16() -> bool:
    available = (
        platform.machine() in ("x86_64", "AMD64")  # elsewhere untried
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    )
    return bool(available and torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001


def _layer(block: nn.Module, dtype: torch.dtype) -> "_ClassicLayer | _ModernLayer":
    if isinstance(block, ClassicBlock):
        return _ClassicLayer(block, dtype)
    assert isinstance(block, ModernBlock)
    return _ModernLayer(block, dtype)


class _ClassicLayer:
    """What `ClassicBlock` computes, for one token."""

    def __init__(self, block: ClassicBlock, dtype: torch.dtype) -> None:
        attention = block.attention
        self._n_head, self._activation = attention.n_head, block.activation
        self._qkv = _Matrix(block.norm1, attention.qkv, dtype)
        self.proj = _Matrix(None, attention.proj, dtype)
        self._up = _Matrix(block.norm2, block.up, dtype)
        self._down = _Matrix(None, block.down, dtype)

    def heads(self, x: Tensor, _: Turn | None) -> Heads:
        q, k, v = self._qkv(x).view(x.size(0), 3, self._n_head, -1).unbind(1)
        return q, k, v

    def feed_forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self._activation(self._up(x))
        return self._down(hidden)


class _ModernLayer:
    """What `ModernBlock` computes, for one token."""

    def __init__(self, block: ModernBlock, dtype: torch.dtype) -> None:
        attention = block.attention
        self._heads, self._head_dim = attention.heads, attention.head_dim
        self._qkv = _Matrix(block.norm1, attention.qkv, dtype)
        norms = (attention.q_norm.weight, attention.k_norm.weight)
        self._gain = torch.cat(  # (H + K, D)
            [norm.detach().expand(n, -1) for norm, n in zip(norms, self._heads[:2], strict=True)]
        )
        self.proj = _Matrix(None, attention.proj, dtype)
        self._gate_up = _Matrix(block.norm2, block.gate_up, dtype)
        self._down = _Matrix(None, block.down, dtype)

    def heads(self, x: Tensor, turn: Turn | None) -> Heads:
        assert turn is not None
        n_q, n_k, _ = self._heads
        qkv = self._qkv(x).view(x.size(0), sum(self._heads), self._head_dim)
        turned = apply_rotary(unit_rms(qkv[:, : n_q + n_k]) * self._gain, turn)  # queries and keys
        return turned[:, :n_q], turned[:, n_q:], qkv[:, n_q + n_k :]

    def feed_forward(self, x: Tensor) -> Tensor:
        return self._down(swiglu(self._gate_up(x)))


def unit_rms(x: Tensor) -> Tensor:
    """RMSNorm over the last axis without its weight; for few rows faster than PyTorch's."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x * norm.square_().div_(x.size(-1)).add_(EPSILON).rsqrt_()
