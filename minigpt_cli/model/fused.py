"""The operations of `kernels` in C, a pass each, where a compiler built them: `native/training.c`.

Each is a `torch.autograd.Function` over contiguous tensors on the CPU, in fp32 or bf16.

Shapes: B batch, T time, C channels, F hidden, H heads, K key/value heads, D head_dim; any axes may
come before the channels.
"""

from collections.abc import Sequence
from ctypes import Structure, byref, c_float, c_int32, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor

from minigpt_cli.native.library import LANES, library


class _Norm(Structure):
    _fields_ = (
        *((name, c_int32) for name in ("is_fp32", "threads")),
        *((name, c_int64) for name in ("rows", "size")),
        ("eps", c_float),
        *((name, c_void_p) for name in ("x", "grad", "weight", "scale", "out", "grad_weight")),
    )


class _Gated(Structure):
    _fields_ = (
        *((name, c_int32) for name in ("is_fp32", "threads")),
        *((name, c_int64) for name in ("rows", "hidden")),
        *((name, c_void_p) for name in ("gate_up", "grad", "out")),
    )


class _Heads(Structure):
    _fields_ = (
        *((name, c_int32) for name in ("is_fp32", "threads")),
        *((name, c_int64) for name in ("batch", "time", "n_head", "n_kv_head", "head_dim")),
        *((name, c_int32) for name in ("q_time_first", "kv_time_first")),
        ("eps", c_float),
        *((name, c_void_p) for name in ("qkv", "x", "q", "k", "v", "q_weight", "k_weight")),
        *((name, c_void_p) for name in ("scale", "cos", "sin")),
        *((name, c_void_p) for name in ("grad_q_weight", "grad_k_weight")),
    )


class _Softmax(Structure):
    _fields_ = (
        *((name, c_int32) for name in ("is_fp32", "threads")),
        *((name, c_int64) for name in ("rows", "keys", "block_rows", "group", "seen")),
        ("scale", c_float),
        *((name, c_void_p) for name in ("scores", "weights")),
    )


def suits(x: Tensor, *sizes: int) -> bool:
    """Whether x can be computed with here; `sizes` are of the axes that are read by vectors."""
    return x.is_contiguous() and computes(x.dtype, *sizes)


def computes(dtype: torch.dtype, *sizes: int) -> bool:
    """Whether contiguous tensors of a dtype can be computed with here."""
    return (
        dtype in (torch.float32, torch.bfloat16)
        and all(size % LANES == 0 for size in sizes)
        and library() is not None
    )


def _call(name: str, arguments: Structure) -> None:
    getattr(library(), name)(byref(arguments))


def _common(x: Tensor) -> dict[str, int]:
    return {"is_fp32": x.dtype == torch.float32, "threads": torch.get_num_threads()}


def _parts(weight: Tensor) -> Tensor:
    """Zeros for the parts of a weight's gradient, one for each part of the rows."""
    loaded = library()
    assert loaded is not None
    return torch.zeros(loaded.minigpt_parts(), weight.size(0))


class RMSNorm(torch.autograd.Function):
    """`kernels.rms_norm` of x, (..., C), and a weight, (C,)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        C = x.size(-1)
        out, scale = torch.empty_like(x), torch.empty(x.shape[:-1])
        full = weight.detach().float().contiguous()
        norm = _Norm(
            **_common(x), rows=scale.numel(), size=C, eps=eps, x=x.data_ptr(),
            weight=full.data_ptr(), scale=scale.data_ptr(), out=out.data_ptr(),
        )  # fmt: skip
        _call("minigpt_norm", norm)
        ctx.save_for_backward(x, weight, scale)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        grad, out, parts = grad.contiguous(), torch.empty_like(x), _parts(weight)
        full = weight.float().contiguous()
        norm = _Norm(
            **_common(x), rows=scale.numel(), size=x.size(-1), x=x.data_ptr(),
            grad=grad.data_ptr(), weight=full.data_ptr(), scale=scale.data_ptr(),
            out=out.data_ptr(), grad_weight=parts.data_ptr(),
        )  # fmt: skip
        _call("minigpt_norm_backward", norm)
        return out, parts.sum(0).to(weight.dtype), None


class SwiGLU(torch.autograd.Function):
    """`kernels.swiglu` of gate and up, (..., 2F)."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        F = gate_up.size(-1) // 2
        out = gate_up.new_empty(*gate_up.shape[:-1], F)
        gated = _Gated(
            **_common(gate_up), rows=out.numel() // F, hidden=F, gate_up=gate_up.data_ptr(),
            out=out.data_ptr(),
        )  # fmt: skip
        _call("minigpt_swiglu", gated)
        ctx.save_for_backward(gate_up)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        grad, out = grad.contiguous(), torch.empty_like(gate_up)
        F = grad.size(-1)
        gated = _Gated(
            **_common(grad), rows=grad.numel() // F, hidden=F, gate_up=gate_up.data_ptr(),
            grad=grad.data_ptr(), out=out.data_ptr(),
        )  # fmt: skip
        _call("minigpt_swiglu_backward", gated)
        return out


class Heads(torch.autograd.Function):
    """What lies between the projection and attention: QK-norm, rotation, and the layout of heads.

    Of the projection, (B, T, (H+2K) D), and optionally the norms' weights, (D,) each, and cosines
    and sines, (T, D) each, to (B, H, T, D), (B, K, T, D) and (B, K, T, D).
    """

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        q_weight: Tensor | None,
        k_weight: Tensor | None,
        eps: float,
        rotary: tuple[Tensor, Tensor] | None,
        n_head: int,
        n_kv_head: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        B, T, width = qkv.shape
        D = width // (n_head + 2 * n_kv_head)
        ctx.sizes = {"batch": B, "time": T, "n_head": n_head, "n_kv_head": n_kv_head, "head_dim": D}
        # PyTorch's attention, for fp32, keeps the layout; ours, for bf16, puts the heads that share
        # a key together by itself.
        kv_first = qkv.dtype == torch.float32
        ctx.layout = {"q_time_first": kv_first or n_head > n_kv_head, "kv_time_first": kv_first}
        counts = (n_head, n_kv_head, n_kv_head)
        parts = [
            qkv.new_empty((B, T, heads, D) if first else (B, heads, T, D))
            for heads, first in zip(counts, _first(ctx), strict=True)
        ]
        scale = None if q_weight is None else torch.empty(B, T, n_head + n_kv_head)
        cos, sin = rotary or (None, None)
        heads, _kept = _heads(ctx, qkv, parts, (q_weight, k_weight), scale, (cos, sin))
        heads.eps = eps
        _call("minigpt_heads", heads)
        saved = qkv if scale is not None else None
        ctx.save_for_backward(saved, q_weight, k_weight, scale, cos, sin)
        q, k, v = _turned(ctx, parts)
        return q, k, v

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        qkv, q_weight, k_weight, scale, *rotary = ctx.saved_tensors
        B, T, D = (ctx.sizes[name] for name in ("batch", "time", "head_dim"))
        out = grads[0].new_empty(B, T, sum(grad.size(1) for grad in grads) * D)
        parts = [grad.contiguous() for grad in _turned(ctx, grads)]
        heads, _kept = _heads(ctx, out, parts, (q_weight, k_weight), scale, rotary)
        of_weights: tuple[Tensor | None, ...] = (None, None)
        if scale is not None:
            heads.x = qkv.data_ptr()
            sums = _parts(q_weight), _parts(k_weight)
            heads.grad_q_weight, heads.grad_k_weight = (each.data_ptr() for each in sums)
        _call("minigpt_heads_backward", heads)
        if scale is not None:
            of_weights = tuple(each.sum(0).to(q_weight.dtype) for each in sums)
        return out, *of_weights, None, None, None, None


def _first(ctx: Any) -> tuple[bool, bool, bool]:
    """Whether in q, k and v the time comes before the heads."""
    return ctx.layout["q_time_first"], ctx.layout["kv_time_first"], ctx.layout["kv_time_first"]


def _turned(ctx: Any, parts: Sequence[Tensor]) -> list[Tensor]:
    """From that layout to the other, or back."""
    return [
        part.transpose(1, 2) if first else part
        for part, first in zip(parts, _first(ctx), strict=True)
    ]


def _heads(
    ctx: Any,
    qkv: Tensor,
    parts: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    scale: Tensor | None,
    rotary: Sequence[Tensor | None],
) -> tuple[_Heads, list[Tensor]]:
    """The arguments of both passes, and what must be kept until the call has ended."""
    heads = _Heads(**_common(qkv), **ctx.sizes, **ctx.layout, qkv=qkv.data_ptr())
    heads.q, heads.k, heads.v = (part.data_ptr() for part in parts)
    full = [weight.detach().float().contiguous() for weight in weights if weight is not None]
    turns = [each.to(qkv.dtype).contiguous() for each in rotary if each is not None]
    if full and scale is not None:
        heads.q_weight, heads.k_weight = (weight.data_ptr() for weight in full)
        heads.scale = scale.data_ptr()
    if turns:
        heads.cos, heads.sin = (each.data_ptr() for each in turns)
    return heads, full + turns


def causal_softmax_(scores: Tensor, start: int, group: int, scale: float) -> None:
    """The softmax of scores times a scale over the keys that each query may see, in place.

    Args:
        scores: (B K, block G, keys), for a block of queries.
        start: where the block begins.
        group: G, the rows of each query.
        scale: above 0.
    """
    arguments = _softmax(scores, start, group)
    arguments.scale = scale
    _call("minigpt_softmax", arguments)


def causal_softmax_backward_(grad: Tensor, weights: Tensor, start: int, group: int) -> None:
    """Turns the gradient of these weights into that of the scores times the scale, in place."""
    arguments = _softmax(grad, start, group)
    arguments.weights = weights.data_ptr()
    _call("minigpt_softmax_backward", arguments)


def _softmax(scores: Tensor, start: int, group: int) -> _Softmax:
    heads, block_rows, keys = scores.shape
    return _Softmax(
        **_common(scores), rows=heads * block_rows, keys=keys, block_rows=block_rows, group=group,
        seen=start + 1, scores=scores.data_ptr(),
    )  # fmt: skip
