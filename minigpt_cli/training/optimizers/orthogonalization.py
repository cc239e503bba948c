"""The nearest orthogonal matrices, by Newton–Schulz steps."""

import torch
from torch import Tensor

_POLAR_EXPRESS = (
    (7.8327, -21.4358, 15.1063),
    (3.5720, -2.5696, 0.4865),
    (2.6189, -1.8708, 0.4108),
    (1.9589, -1.3404, 0.3841),
)
"""Coefficients of x, x³ and x⁵ in each step of `newton_schulz`: the best ones for singular values
from 0.01 to 1, by the method of Amsel et al. 2025, Polar Express."""
_SAFETY = 1.02
"""The largest singular value is kept below 1 by this factor, because bf16 rounds."""


def newton_schulz(matrices: Tensor) -> Tensor:
    """Pushes all singular values of each matrix toward 1 by four Newton–Schulz steps.

    A step needs them to be at most 1. The Frobenius norm, which is usually divided by, leaves the
    largest at a fifth; the Schatten 4-norm, which is had from the first product, is much closer to
    it and saves a step.

    Args:
        matrices: (N, rows, columns).

    Returns:
        The same shape in bf16; what was above a hundredth of the largest is between 0.5 and 1.1.
    """
    x = matrices.bfloat16()
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    gram = x @ x.mT
    # √‖X Xᵀ‖ is the fourth root of the sum of the fourth powers of the singular values.
    scale = gram.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-14).rsqrt() / _SAFETY
    x, gram = x * scale, gram * scale.square()
    for i, (a, b, c) in enumerate(_POLAR_EXPRESS):
        if i:
            gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
