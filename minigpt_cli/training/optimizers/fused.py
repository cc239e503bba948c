"""What Muon does before and after its products, a pass each in C: `native/training.c`.

Weights, gradients and momentum are contiguous fp32 tensors on the CPU, updates and directions bf16.
"""

from ctypes import CDLL, Structure, byref, c_float, c_int32, c_int64, c_void_p

import torch
from torch import Tensor

from minigpt_cli.native.library import library


class _Nesterov(Structure):
    _fields_ = (
        ("threads", c_int32),
        ("count", c_int64),
        ("forgotten", c_float),
        *((name, c_void_p) for name in ("grad", "momentum", "update")),
    )


class _Move(Structure):
    _fields_ = (
        ("threads", c_int32),
        ("count", c_int64),
        *((name, c_float) for name in ("kept", "scale")),
        *((name, c_void_p) for name in ("direction", "weight")),
    )


def _library(*tensors: Tensor) -> CDLL | None:
    """What is compiled, if it can compute with these fp32 tensors."""
    suits = all(
        x.device.type == "cpu" and x.dtype == torch.float32 and x.is_contiguous() for x in tensors
    )
    return library() if suits else None


def nesterov(grad: Tensor, momentum: Tensor, kept: float) -> Tensor:
    """Moves a momentum toward a gradient, in place, and looks a step ahead (Nesterov 1983).

    Args:
        grad: of any shape.
        momentum: of the same.
        kept: share of the past gradients kept.

    Returns:
        The update, in bf16.
    """
    compiled = _library(grad, momentum)
    if compiled is None:
        momentum.lerp_(grad, 1 - kept)
        return grad.lerp(momentum, kept).bfloat16()
    update = torch.empty_like(grad, dtype=torch.bfloat16)
    compiled.minigpt_nesterov(
        byref(
            _Nesterov(
                torch.get_num_threads(), grad.numel(), 1 - kept,
                grad.data_ptr(), momentum.data_ptr(), update.data_ptr(),
            )
        )
    )  # fmt: skip
    return update


def move_(weight: Tensor, direction: Tensor, kept: float, scale: float) -> None:
    """Replaces a weight by weight · kept - direction · scale.

    Args:
        weight: of any shape.
        direction: of the same, in bf16.
        kept: what weight decay leaves.
        scale: the length of the step.
    """
    compiled = _library(weight)
    if compiled is None:
        weight.mul_(kept).sub_(direction.to(weight.dtype), alpha=scale)
        return
    direction = direction.contiguous()
    compiled.minigpt_move(
        byref(
            _Move(
                torch.get_num_threads(), weight.numel(), kept, scale,
                direction.data_ptr(), weight.data_ptr(),
            )
        )
    )  # fmt: skip
