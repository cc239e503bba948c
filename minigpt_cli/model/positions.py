"""How a model knows the order of its tokens: learned vectors, or rotations of queries and keys.

Both kinds answer the same two questions: what to add to the token embeddings, and by which angles
to rotate queries and keys. Each does nothing where the other acts.

Shapes: B batch, T time, C n_embd, D head_dim, W block_size.
"""

import torch
from torch import Tensor, nn

from minigpt_cli.errors import NonFiniteError
from minigpt_cli.language import _
from minigpt_cli.model.layers import Embedding

SPAN = 4096
"""Positions for which a table is made at first; a longer window may never be read."""

Rotary = tuple[Tensor, Tensor]
"""Cosines and sines of the positions, (T, D) each; see `kernels.apply_rotary`."""


class LearnedPositions(Embedding):
    """A learned vector for each position, added to the embeddings (Vaswani et al. 2017).

    The weight is (W, C).
    """

    are_relative = False

    def add(self, x: Tensor, start: int, length: int) -> Tensor:
        """Adds the vectors of `length` positions from `start` to x, (B, T, C) or (B, C)."""
        return x + self.weight[start : start + length]

    def rotary(self, start: int, length: int, dtype: torch.dtype, device: torch.device) -> None:
        """None: queries and keys are not rotated."""


class RotaryPositions(nn.Module):
    """Rotary positions (Su et al. 2021): pairs of channels rotate by an angle per position.

    Angles are computed in double precision, since a long text has large positions, and on the CPU,
    since some devices have no double precision. A table of two spans is kept, and replaced when
    decoding leaves it; a span is the window, or of a very long one no more than is read at once.
    """

    are_relative = True

    def __init__(self, head_dim: int, theta: float, window: int) -> None:
        super().__init__()
        exponent = torch.arange(0, head_dim, 2, dtype=torch.float64, device="cpu") / head_dim
        self._frequency = theta**-exponent  # (D/2,)
        self._window, self._span = window, min(window, SPAN)
        self._kept: tuple[int, torch.dtype, torch.device] | None = None

    def add(self, x: Tensor, start: int, length: int) -> Tensor:  # noqa: ARG002 - one interface
        """Returns x unchanged."""
        return x

    def rotary(self, start: int, length: int, dtype: torch.dtype, device: torch.device) -> Rotary:
        """Cosines and sines of `length` positions from `start`, (T, D) each.

        The sine's first half is negated: a rotation is then two products and a sum.

        Raises:
            NonFiniteError: the base is so small that an angle overflows.
        """
        if length > self._span:
            self._span, self._kept = min(2 * length, self._window), None
        first = start - start % self._span
        if self._kept != (first, dtype, device):
            with torch.inference_mode(False):  # an evaluation may make the table, training use it
                position = torch.arange(first, first + 2 * self._span, dtype=torch.float64)
                angle = torch.outer(position, self._frequency)  # (2 span, D/2)
                if not angle.isfinite().all():
                    raise NonFiniteError(_("the model's rotary angles (model.rope_theta)"))
                cos, sin = angle.cos(), angle.sin()
                self._cos = torch.cat((cos, cos), -1).to(device, dtype)
                self._sin = torch.cat((-sin, sin), -1).to(device, dtype)
            self._kept = (first, dtype, device)
        rows = slice(start - first, start - first + length)
        return self._cos[rows], self._sin[rows]


Positions = LearnedPositions | RotaryPositions
