"""The operations between the matrix products, with hand-written backward passes.

On a CPU a training step spends much of its time moving activations through memory, and autograd
moves them often: it keeps every intermediate and pads every slice back to its whole.
Each function here has a plain formula, which runs under PyTorch's compiler, on an accelerator and
without gradients, and a `torch.autograd.Function` that computes the same in fewer passes; most have
a third form in C, one pass each, for machines with a compiler (`fused`).
`tests/model/test_kernels.py` compares them.

Shapes: C channels, F hidden, T time, D head_dim; any axes may come before them.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt_cli.model import fused
from minigpt_cli.private_torch import silu_backward_into

EPSILON = 1e-6


def by_hand(x: Tensor) -> bool:
    """Whether the hand-written pass is faster for this tensor."""
    return x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling()


def rms_norm(x: Tensor, weight: Tensor, eps: float = EPSILON) -> Tensor:
    """Divides by the root mean square over the last axis, times a weight (Zhang & Sennrich 2019).

    Args:
        x: (..., C).
        weight: (C,), in the dtype of `x`.
        eps: added to the mean square.

    Returns:
        (..., C).
    """
    if by_hand(x):
        out: Tensor
        if fused.suits(x, x.size(-1)):
            out = fused.RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
        else:
            out = _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
        return out
    return F.rms_norm(x, weight.shape, weight, eps)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = norm.square_().div_(x.size(-1)).add_(eps).rsqrt_()  # (..., 1)
        ctx.save_for_backward(x, weight, scale)
        out: Tensor = (x * scale.to(x.dtype)).mul_(weight)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        # With s the scale and g the gradient: dx = s g w - x s³ mean(g w x), dw = sum(s g x).
        product = grad * x
        shared = torch.matmul(product, weight).unsqueeze(-1)  # (..., 1)
        shared = (shared * scale.pow(3)).div_(-x.size(-1)).to(x.dtype)
        scale = scale.to(x.dtype)
        grad_weight = product.mul_(scale).sum(tuple(range(x.dim() - 1)))
        return (grad * weight).mul_(scale).addcmul_(x, shared), grad_weight, None


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) · up (Shazeer 2020).

    Args:
        gate_up: gate, then up, (..., 2F).

    Returns:
        (..., F).
    """
    if by_hand(gate_up):
        kernel = fused.SwiGLU if fused.suits(gate_up, gate_up.size(-1) // 2) else _SwiGLU
        out: Tensor = kernel.apply(gate_up)  # type: ignore[no-untyped-call]
        return out
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        ctx.save_for_backward(gate_up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        both = torch.empty_like(gate_up)
        grad_gate, grad_up = both.chunk(2, dim=-1)
        torch.mul(grad, F.silu(gate), out=grad_up)
        silu_backward_into(grad * up, gate, grad_gate)
        return both


def apply_rotary(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates pairs of channels by an angle per position (Su et al. 2021).

    Args:
        x: queries or keys, (..., T, D); channel i is paired with channel i + D/2.
        rotary: cosines, and sines whose first half is negated, (T, D) each.

    Returns:
        (..., T, D).
    """
    if by_hand(x):
        out: Tensor = _Rotation.apply(x, *rotary)  # type: ignore[no-untyped-call]
        return out
    return _rotated(x, *rotary)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, direction: int = 1) -> Tensor:
    return torch.addcmul(x * cos, x.roll(x.size(-1) // 2, -1), sin, value=direction)


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        # The gradient is rotated by the negative angle.
        cos, sin = ctx.saved_tensors
        return _rotated(grad, cos, sin, direction=-1), None, None


def dropout(x: Tensor, p: float) -> Tensor:
    """Zeroes a share p of the entries and scales up the others (Srivastava et al. 2014).

    On a CPU p is rounded to a multiple of 1/256: a random number of 64 bits then decides eight
    entries, for which PyTorch draws eight numbers one after another.
    """
    if not by_hand(x):
        return F.dropout(x, p)
    dropped = min(255, round(256 * p))
    drawn = torch.empty(-(-x.numel() // 8), dtype=torch.int64)
    drawn.random_(torch.iinfo(torch.int64).min, None)  # all 64 bits
    kept = drawn.view(torch.uint8)[: x.numel()].view(x.shape) >= dropped
    return x * kept.to(x.dtype).mul_(256 / (256 - dropped))
