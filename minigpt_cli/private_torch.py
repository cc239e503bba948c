"""Every operator of PyTorch that has no public name, in one place.

PyTorch may change these in any release. `tests/test_private_torch.py` names the version they were
checked with and compares each with a public formula. Where the plain formula is short, it
replaces an operator that is missing.
"""

import platform
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# ruff: noqa: SLF001 - private names are what this module is for


def softmax_backward(grad: Tensor, weights: Tensor) -> Tensor:
    """The gradient of the scores whose softmax over the last axis is `weights`.

    One pass where the formula takes three; autograd calls it, but offers it to no one else.
    Gradient and weights are (..., T); each row of weights sums to 1.
    """
    operator = getattr(torch.ops.aten, "_softmax_backward_data", None)
    if operator is None:
        return weights * (grad - (grad * weights).sum(-1, keepdim=True))
    out: Tensor = operator(grad, weights, -1, weights.dtype)
    return out


def silu_backward_into(grad: Tensor, x: Tensor, out: Tensor) -> None:
    """Writes the gradient of x in silu(x) to `out`, which may be a view; all of one shape.

    The public way, autograd, allocates the result and copies it.
    """
    torch.ops.aten.silu_backward.grad_input(grad, x, grad_input=out)


def int8_product(x: Tensor, numbers: Tensor, scale: Tensor) -> Tensor:
    """Multiplies by a matrix in 8 bits without converting it first: x · (numbers · scale)ᵀ.

    x is bf16, (B, in), where 16 divides `in`; numbers int8, (out, in); scale bf16, (out,); the
    result bf16, (B, out).
    """
    operator = getattr(torch.ops.aten, "_weight_int8pack_mm", None)
    if operator is None:
        return F.linear(x, numbers.to(x.dtype)) * scale
    out: Tensor = operator(x, numbers, scale)
    return out


def packed_linear(weight: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Multiplies by a matrix that is laid out for oneDNN once instead of for every token.

    PyTorch's compiler does the same. The weight is bf16 on a CPU, (out, in); the result a function
    from bf16, (B, in), to bf16, (B, out), or None where oneDNN cannot do it.
    """
    available = (
        platform.machine() in ("x86_64", "AMD64")  # not tried on others
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    )
    if not available or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    multiply = torch.ops.mkldnn._linear_pointwise
    return lambda x: multiply(x, packed, None, "none", [], "")


def add_each_(tensors: Sequence[Tensor], number: float) -> None:
    """Adds a number to each tensor in place.

    One call for hundreds of small tensors; the public optimizers do the same.
    """
    torch._foreach_add_(list(tensors), number)


def lerp_each_(tensors: Sequence[Tensor], ends: Sequence[Tensor], share: float) -> None:
    """Moves each tensor toward the one in the same place by a share of the way, in one call."""
    torch._foreach_lerp_(list(tensors), list(ends), share)


def fused_adamw_(
    parameters: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    steps: list[Tensor],
    *,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> None:
    """One step of AdamW (Loshchilov & Hutter 2019) on all parameters, in place, ε = 1e-8.

    The public way, `torch.optim.AdamW`, imports PyTorch's compiler, which takes a second. The lists
    have a tensor for each parameter: its gradient, the running means of the gradients and of their
    squares, and the number of this step, from 1. The betas are the shares of the past kept in the
    means; weight decay is decoupled.
    """
    torch._fused_adamw_(
        parameters,
        grads,
        exp_avgs,
        exp_avg_sqs,
        [],
        steps,
        lr=lr,
        beta1=betas[0],
        beta2=betas[1],
        weight_decay=weight_decay,
        eps=1e-8,
        amsgrad=False,
        maximize=False,
    )


def uncompile(module: nn.Module) -> None:
    """Undoes `module.compile()`, for which PyTorch has no public way."""
    module._compiled_call_impl = None


def cpu_has_bf16_instructions() -> bool:
    """Whether PyTorch knows this CPU (Intel's and AMD's) to compute bf16 in hardware."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)
