"""Causal attention, with the fastest kernel for the machine.

Shapes: B batch, H heads, K key/value heads, G heads that share a key, T time, D head_dim.

Every path computes softmax(q kᵀ / √D) v over the keys up to the query's own position
(Vaswani et al. 2017); `tests/model/test_attention.py` compares each with the formula.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt_cli.model import fused
from minigpt_cli.private_torch import softmax_backward

QUERIES_PER_BLOCK = 128


def causal_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """Attention in which no query attends to a later key.

    Args:
        q: queries, (B, H, T, D).
        k: keys, (B, K, T, D), where K divides H.
        v: values, (B, K, T, D).
        dropout: share of attention weights dropped; 0 outside training.

    Returns:
        (B, T, H, D): the heads of a token are adjacent, as the output projection needs them.
    """
    # PyTorch's fused kernel is the fastest, except in bf16 on a CPU, where its backward pass takes
    # about nine times as long as in fp32.
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and dropout == 0.0:
        return _blockwise(q, k, v)
    out = F.scaled_dot_product_attention(
        q, k, v, dropout_p=dropout, is_causal=True, enable_gqa=k.size(1) != q.size(1)
    )
    return out.transpose(1, 2)  # (B, T, H, D)


def _blockwise(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One block of queries at a time, against the keys up to the end of the block.

    The G = H/K heads that share a key are adjacent at every time, so that one product serves them
    all and no key is repeated.
    """
    B, H, T, D = q.shape
    K, G = k.size(1), H // k.size(1)
    q = q.transpose(1, 2).reshape(B, T, K, G, D).transpose(1, 2).reshape(B * K, T * G, D)
    k, v = (x.reshape(B * K, T, D) for x in (k, v))
    out: Tensor = _Blockwise.apply(q, k, v)  # type: ignore[no-untyped-call]
    return out.view(B, K, T, G, D).transpose(1, 2).reshape(B, T, H, D)


class _Blockwise(torch.autograd.Function):
    """Blocks of queries, (B K, T G, D), against keys and values, (B K, T, D).

    Nearly half of the T × T scores are above the diagonal; those after a block's last query are
    never computed. Mask and scale are part of the products or of the softmax, and the products
    accumulate the gradients of keys and values, so that only the softmax needs a pass of its own.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        T = k.size(1)
        G = q.size(1) // T
        out, weights = torch.empty_like(q), []
        for start, end in _blocks(T):
            rows = slice(start * G, end * G)
            weights.append(_weights(q[:, rows], k[:, :end], start))  # (B K, block G, end)
            torch.bmm(weights[-1], v[:, :end], out=out[:, rows])
        ctx.save_for_backward(q, k, v, *weights)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, *weights = ctx.saved_tensors
        T, D = k.shape[1:]
        G = q.size(1) // T
        grad = grad.contiguous()
        grad_q, grad_k, grad_v = (torch.empty_like(x) for x in (q, k, v))
        # The last block covers every key, so its products start the sums; beta = 0 ignores the
        # uninitialized contents.
        for i, (start, end) in reversed(list(enumerate(_blocks(T)))):
            beta, rows = 0 if end == T else 1, slice(start * G, end * G)
            g, w = grad[:, rows], weights[i]
            grad_scores = _scores_gradient(torch.bmm(g, v[:, :end].mT), w, start, G)
            grad_q[:, rows].baddbmm_(grad_scores, k[:, :end], beta=0, alpha=D**-0.5)
            grad_k[:, :end].baddbmm_(grad_scores.mT, q[:, rows], beta=beta, alpha=D**-0.5)
            grad_v[:, :end].baddbmm_(w.mT, g, beta=beta)
        return grad_q, grad_k, grad_v


def _weights(q: Tensor, k: Tensor, start: int) -> Tensor:
    """The attention weights of a block of queries, (B K, block G, D), on the keys up to its end.

    Mask and scale are the product's business, or the softmax's where that is in C.
    """
    end, scale = k.size(1), k.size(2) ** -0.5
    block = end - start
    G = q.size(1) // block
    if not torch.compiler.is_compiling() and fused.computes(q.dtype, end):
        scores = torch.bmm(q, k.mT)
        fused.causal_softmax_(scores, start, G, scale)
        return scores
    mask = q.new_full((block, end), float("-inf")).triu_(start + 1)
    return torch.baddbmm(mask.repeat_interleave(G, 0), q, k.mT, alpha=scale).softmax(-1)


def _scores_gradient(grad: Tensor, weights: Tensor, start: int, G: int) -> Tensor:
    """The gradient of scaled scores from that of their softmax, (B K, block G, keys)."""
    if not torch.compiler.is_compiling() and fused.computes(grad.dtype, grad.size(-1)):
        fused.causal_softmax_backward_(grad, weights, start, G)
        return grad
    return softmax_backward(grad, weights)


def _blocks(length: int) -> list[tuple[int, int]]:
    """Start and end of each block of queries."""
    step = QUERIES_PER_BLOCK
    return [(start, min(start + step, length)) for start in range(0, length, step)]
