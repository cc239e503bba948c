"""Causal attention, by the kernel that suits the machine.

Shapes: B batch, H heads, K key/value heads, T time, D head_dim.

Every path computes softmax(q kᵀ / √D) v over the keys up to the query's own
(Vaswani et al. 2017); `tests/test_attention.py` holds them against the formula written out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

QUERIES_PER_BLOCK = 128


def causal_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """Attention in which no query sees a later key.

    Args:
        q: queries, (B, H, T, D).
        k: keys, (B, K, T, D), where K divides H.
        v: values, (B, K, T, D).
        dropout: share of attention weights dropped; pass 0 outside training.

    Returns:
        (B, T, H, D), so that heads lie side by side for the output projection.
    """
    # PyTorch's fused kernel is the best there is, except in bf16 on a CPU, where its backward
    # pass takes about nine times as long as in fp32.
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and dropout == 0.0:
        return _blockwise(q, k, v)
    out = F.scaled_dot_product_attention(
        q, k, v, dropout_p=dropout, is_causal=True, enable_gqa=k.size(1) != q.size(1)
    )
    return out.transpose(1, 2)  # (B, T, H, D)


def cached_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of one new query, (B, H, 1, D), to every cached key: nothing is masked.

    Returns:
        (B, 1, H, D).
    """
    out = F.scaled_dot_product_attention(q, k, v, enable_gqa=k.size(1) != q.size(1))
    return out.transpose(1, 2)  # (B, 1, H, D)


def _blockwise(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A block of queries at a time, each against the keys up to its own end only.

    Nearly half of the T × T scores lie above the diagonal; this computes few of them, and lets
    the matrix product add the mask and the scale in the same pass.
    """
    B, H, T, D = q.shape
    if k.size(1) != H:
        k = k.repeat_interleave(H // k.size(1), dim=1)
        v = v.repeat_interleave(H // v.size(1), dim=1)
    q, k, v = (x.reshape(B * H, T, D) for x in (q, k, v))
    outs = []
    for start in range(0, T, QUERIES_PER_BLOCK):
        end = min(start + QUERIES_PER_BLOCK, T)
        mask = q.new_full((end - start, end), float("-inf")).triu(start + 1)
        scores = torch.baddbmm(mask, q[:, start:end], k[:, :end].mT, alpha=D**-0.5)
        out = torch.bmm(scores.softmax(-1), v[:, :end])  # (B*H, block, D)
        outs.append(out.view(B, H, end - start, D).transpose(1, 2))
    return torch.cat(outs, dim=1)  # (B, T, H, D)
