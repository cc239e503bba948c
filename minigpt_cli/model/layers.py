"""The layers that blocks are made of. Each computes in the dtype of its input.

Building one draws no weights: training calls `GPT.initialize`, loading fills them from a file.

Shapes: B batch, T time, C n_embd; any axes may come before the last.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt_cli.model.kernels import EPSILON, dropout, rms_norm


class Embedding(nn.Embedding):
    """A row of the weight for each id; the weight is (rows, C)."""

    def reset_parameters(self) -> None:
        """Leaves the weight as it was allocated."""


class Linear(nn.Linear):
    """A linear layer, (..., in) to (..., out).

    Args:
        n_in: the columns of the weight.
        rows: the output rows of each part stacked in the weight: query, key and value are one
            product here.
        bias: whether there is one.
        heads: of how many matrices each part consists to an optimizer that orthogonalizes them; one
            by default.
    """

    def __init__(
        self, n_in: int, rows: tuple[int, ...], bias: bool, heads: tuple[int, ...] | None = None
    ) -> None:
        super().__init__(n_in, sum(rows), bias)
        self.rows = rows
        self.matrices = tuple(
            size // count
            for size, count in zip(rows, heads or (1,) * len(rows), strict=True)
            for _ in range(count)
        )
        """The output rows of each of these matrices."""
        self.int8: tuple[Tensor, Tensor] | None = None
        """Once quantized: the weight as integers, (out, in), and a scale for each row, (out,)."""

    def reset_parameters(self) -> None:
        """Leaves the weight and the bias as they were allocated."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class Dropout(nn.Dropout):
    """Zeroes a share of the activations during training (Srivastava et al. 2014)."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training and self.p else x


class LayerNorm(nn.Module):
    """Zero mean and unit variance over C, then a weight and an optional bias (Ba et al. 2016)."""

    def __init__(self, n_embd: int, bias: bool, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(n_embd))
        self.bias = nn.Parameter(torch.empty(n_embd)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.layer_norm(x, self.weight.shape, self.weight.to(x.dtype), bias, self.eps)


class RMSNorm(nn.Module):
    """Unit root mean square over the last axis, then a weight (Zhang & Sennrich 2019)."""

    def __init__(self, size: int, eps: float = EPSILON) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(size))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight.to(x.dtype), self.eps)
