"""Muon: momentum with orthogonalized updates, for the matrices in the blocks."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from minigpt_cli.training.optimizers.fused import move_, nesterov
from minigpt_cli.training.optimizers.updater import HERE, Placement, Updater


class _Stack(NamedTuple):
    """Neighboring matrices of one size in a parameter, stacked by rows, (N · rows, columns)."""

    rows: int
    """Of each matrix."""
    update: Tensor
    """All of them, in bf16."""
    own: slice
    """The rows of the stack that this process updates."""
    weight: Tensor
    """And these rows of the parameter."""


class Muon(Updater):
    """Momentum with orthogonalized updates (Jordan et al. 2024), many matrices at a time.

    Each matrix moves by lr · √max(1, rows/columns) along the orthogonal matrix nearest to its
    Nesterov momentum, found by Newton–Schulz steps in bf16. `torch.optim.Muon` does the same for
    one matrix after another; here all matrices of one shape share each product.

    Args:
        parameters: two-dimensional weights, each with the rows of the matrices stacked in it.
        lr: learning rate; an update has a Frobenius norm of about lr · √rows.
        momentum: share of the past gradients kept.
        weight_decay: decoupled, times the learning rate.
        placement: where the weights are.
    """

    state_has_shape: ClassVar = {"momentum_buffer": True}

    def __init__(
        self,
        parameters: list[tuple[Tensor, tuple[int, ...]]],
        lr: float,
        momentum: float,
        weight_decay: float,
        placement: Placement = HERE,
    ) -> None:
        matrices = [parameter for parameter, _ in parameters]
        super().__init__([{"params": matrices, "lr": lr, "weight_decay": weight_decay}])
        self._rows, self._momentum, self._placement = dict(parameters), momentum, placement

    @torch.no_grad()
    def step(self) -> None:
        """Updates every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[_Stack]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    for stack in self._stacks(p):
                        by_shape[stack.rows, p.size(1)].append(stack)
            for (rows, columns), stacks in by_shape.items():
                together = torch.cat([stack.update.reshape(-1, rows, columns) for stack in stacks])
                directions = self._placement.orthogonalized(together).flatten(0, 1)
                each = torch.split(directions, [len(stack.update) for stack in stacks])
                kept = 1 - group["lr"] * group["weight_decay"]
                scale = group["lr"] * math.sqrt(max(1.0, rows / columns))
                for direction, stack in zip(each, stacks, strict=True):
                    if stack.weight.numel():  # a process may have rows of other matrices only
                        move_(stack.weight, direction[stack.own], kept, scale)

    def _stacks(self, p: Tensor) -> Iterator[_Stack]:
        """Updates a parameter's momentum, and takes it apart by the size of its matrices."""
        place = self._placement
        if not self.state[p]:
            self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        weight, grad = place.local(p), place.local(p.grad)  # type: ignore[arg-type]
        momentum = place.local(self.state[p]["momentum_buffer"])
        update = place.whole(nesterov(grad, momentum, self._momentum), p)
        begin, first, count = 0, place.first_row(p), weight.size(0)
        for rows, run in itertools.groupby(self._rows[p]):
            end = begin + sum(run)
            low, high = (min(max(row, begin), end) for row in (first, first + count))
            own = slice(low - begin, high - begin)
            yield _Stack(rows, update[begin:end], own, weight[low - first : high - first])
            begin = end
