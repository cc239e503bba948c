"""The optimizers, Muon and AdamW: parameter groups, updates, and state by parameter name."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from minigpt_cli.config.schema import OptimizerConfig
from minigpt_cli.language import _
from minigpt_cli.model.gpt import GPT
from minigpt_cli.model.layers import Linear
from minigpt_cli.private_torch import add_each_, fused_adamw_
from minigpt_cli.runs.checkpoint_header import damaged


class Placement:
    """Where the tensors of a model are: here, whole and in one process.

    A strategy of several processes overrides what is different for it.
    """

    def local(self, tensor: Tensor) -> Tensor:
        """The part of a parameter, a gradient or a state that this process updates."""
        return tensor

    def first_row(self, parameter: Tensor) -> int:  # noqa: ARG002 - for those that share it
        """The row of the whole parameter with which that part begins."""
        return 0

    def whole(self, update: Tensor, parameter: Tensor) -> Tensor:  # noqa: ARG002
        """A matrix in one piece, given this process's part of it.

        Args:
            update: this process's rows.
            parameter: whose update it is.

        Returns:
            The shape of the parameter; its dtype may be bf16.
        """
        return update

    def orthogonalized(self, matrices: Tensor) -> Tensor:
        """As from `newton_schulz`, of (N, rows, columns)."""
        return newton_schulz(matrices)

    def assign(self, like: Tensor, whole: Tensor) -> Tensor:
        """A tensor placed as `like` is, from the same one in one piece."""
        return whole.to(like.device)


_HERE = Placement()


class _Updater:
    """Parameters in groups, and the state kept for each.

    Not a `torch.optim.Optimizer`: creating the first one imports PyTorch's compiler, which takes a
    second.
    """

    state_has_shape: ClassVar[dict[str, bool]]
    """For each name of state: whether it has its parameter's shape, or is a single number."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self.param_groups = groups
        self.state: dict[Tensor, dict[str, Tensor]] = defaultdict(dict)


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


class Muon(_Updater):
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
        placement: Placement = _HERE,
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
                    for stack in self._stacks(p, group["lr"] * group["weight_decay"]):
                        by_shape[stack.rows, p.size(1)].append(stack)
            for (rows, columns), stacks in by_shape.items():
                together = torch.cat([stack.update.view(-1, rows, columns) for stack in stacks])
                directions = self._placement.orthogonalized(together).to(stacks[0].weight.dtype)
                each = torch.split(
                    directions.flatten(0, 1), [len(stack.update) for stack in stacks]
                )
                scale = group["lr"] * math.sqrt(max(1.0, rows / columns))
                mine = [
                    (stack.weight, direction[stack.own])
                    for direction, stack in zip(each, stacks, strict=True)
                    if stack.weight.numel()
                ]
                if mine:  # a process may have rows of other matrices only
                    add_each_([t for t, _ in mine], [move for _, move in mine], alpha=-scale)

    def _stacks(self, p: Tensor, decay: float) -> Iterator[_Stack]:
        """Decays a parameter, updates its momentum, and takes it apart by the size of matrices."""
        place = self._placement
        if not self.state[p]:
            self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        weight, grad = place.local(p), place.local(p.grad)  # type: ignore[arg-type]
        buffer = place.local(self.state[p]["momentum_buffer"]).lerp_(grad, 1 - self._momentum)
        update = place.whole(grad.lerp(buffer, self._momentum).bfloat16(), p)
        weight.mul_(1 - decay)
        begin, first, count = 0, place.first_row(p), weight.size(0)
        for rows, run in itertools.groupby(self._rows[p]):
            end = begin + sum(run)
            low, high = (min(max(row, begin), end) for row in (first, first + count))
            own = slice(low - begin, high - begin)
            yield _Stack(rows, update[begin:end], own, weight[low - first : high - first])
            begin = end


class AdamW(_Updater):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), in PyTorch's fused kernel.

    Args:
        groups: each has `params`, `lr` and `weight_decay`.
        betas: shares of the past kept in the running means of gradients and their squares.
        placement: where the weights are.
    """

    state_has_shape: ClassVar = {"step": False, "exp_avg": True, "exp_avg_sq": True}

    def __init__(
        self,
        groups: list[dict[str, Any]],
        betas: tuple[float, float],
        placement: Placement = _HERE,
    ) -> None:
        super().__init__(groups)
        self._betas, self._placement = betas, placement

    @torch.no_grad()
    def step(self) -> None:
        """Updates every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            for p in parameters:
                if not self.state[p]:
                    self.state[p] = {
                        "step": torch.zeros((), device=p.device),
                        "exp_avg": torch.zeros_like(p),
                        "exp_avg_sq": torch.zeros_like(p),
                    }
            if not parameters:
                continue
            states = [self.state[p] for p in parameters]
            steps = [state["step"] for state in states]
            add_each_(steps, 1)
            local = self._placement.local
            mine = [
                (local(p), local(p.grad), local(state["exp_avg"]), local(state["exp_avg_sq"]), step)
                for p, state, step in zip(parameters, states, steps, strict=True)
                if p.grad is not None and local(p).numel()
            ]
            if not mine:
                continue
            fused_adamw_(
                *map(list, zip(*mine, strict=True)),
                lr=group["lr"],
                betas=self._betas,
                weight_decay=group["weight_decay"],
            )


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


class Optimizer:
    """One or two optimizers that update a model, but for frozen weights; state is by name."""

    def __init__(self, model: GPT, config: OptimizerConfig, placement: Placement = _HERE) -> None:
        self._names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
        self.placement = placement
        self._parts = _build(model, config, placement)
        self._places = {
            f"{self._names[parameter]}.{key}": (part, parameter, key)
            for part in self._parts
            for group in part.param_groups
            for parameter in group["params"]
            for key in part.state_has_shape
        }
        self._peaks = [[group["lr"] for group in part.param_groups] for part in self._parts]

    def set_lr(self, scale: float) -> None:
        """Sets every group's learning rate to its peak times `scale`."""
        for part, peaks in zip(self._parts, self._peaks, strict=True):
            for group, peak in zip(part.param_groups, peaks, strict=True):
                group["lr"] = peak * scale

    def step(self) -> None:
        for part in self._parts:
            part.step()

    def zero_grad(self) -> None:
        for parameter in self._names:
            parameter.grad = None

    def state_tensors(self) -> dict[str, Tensor]:
        """All state that the next step depends on, by `<parameter>.<state>`."""
        return {
            f"{self._names[parameter]}.{key}": value
            for part in self._parts
            for parameter, state in part.state.items()
            for key, value in state.items()
        }

    def load_state_tensors(self, tensors: dict[str, Tensor], path: Path) -> None:
        """Replaces the state with tensors from `state_tensors`; errors name the file at `path`.

        Raises:
            CheckpointError: names, shapes or dtypes do not match, or a value is NaN or infinite.
        """
        self.check_state_tensors(tensors, path)
        self.forget_state()
        for name, tensor in tensors.items():
            self.load_state_tensor(name, tensor)

    def check_state_tensors(self, tensors: dict[str, Tensor], path: Path) -> None:
        """Compares tensors with those that `load_state_tensor` takes; none are right too.

        Raises:
            CheckpointError: names, shapes or dtypes do not match, or a value is NaN or infinite.
        """
        places = self._places
        for name in sorted(places.keys() ^ tensors.keys()) if tensors else ():
            problem = _("{name} is missing") if name in places else _("{name} is unexpected")
            raise damaged(path, problem.format(name=name))
        for name, tensor in tensors.items():
            part, parameter, key = places[name]
            shape = parameter.shape if part.state_has_shape[key] else torch.Size([])
            if (tensor.shape, tensor.dtype) != (shape, parameter.dtype):
                found = f"{tensor.dtype} {list(tensor.shape)}"
                wanted = f"{parameter.dtype} {list(shape)}"
                problem = _("{name} is {found} and should be {wanted}")
                raise damaged(path, problem.format(name=name, found=found, wanted=wanted))
            if not tensor.isfinite().all():
                raise damaged(path, _("{name} contains NaN or infinity").format(name=name))

    def forget_state(self) -> None:
        """Returns to the state before the first step."""
        for part in self._parts:
            part.state.clear()

    def load_state_tensor(self, name: str, tensor: Tensor) -> None:
        """Replaces one tensor of the state, given in one piece."""
        part, parameter, key = self._places[name]
        part.state[parameter][key] = (
            self.placement.assign(parameter, tensor)
            if part.state_has_shape[key]
            else tensor.to(parameter.device)
        )


def _build(model: GPT, config: OptimizerConfig, placement: Placement) -> list[Muon | AdamW]:
    """Puts every parameter into exactly one group.

    Muon updates the matrices in the blocks, and AdamW the rest, without weight decay; embedding and
    head may have rates of their own, as in modded-nanogpt. Without Muon, AdamW updates everything
    and decays all matrices, as in GPT-2's recipe. Norms and biases are never decayed.
    """
    matrices: dict[Tensor, tuple[int, ...]] = {
        module.weight: module.matrices
        for module in model.blocks.modules()
        if isinstance(module, Linear) and module.weight.requires_grad
    }
    parameters = [p for p in model.parameters() if p.requires_grad]
    muon: list[Muon | AdamW] = []
    decay, rate = config.weight_decay, config.learning_rate
    rates: dict[Tensor, float] = {}  # of those that have their own
    if config.name == "muon":
        if matrices:
            rows = list(matrices.items())
            muon = [Muon(rows, config.learning_rate, config.momentum, decay, placement)]
        parameters = [p for p in parameters if p not in matrices]
        decay, rate = 0.0, config.adamw_learning_rate
        rates = {model.head.weight: config.head_learning_rate or rate}
        rates[model.token_embedding.weight] = config.embedding_learning_rate or rate
    groups: dict[tuple[float, float], list[Tensor]] = defaultdict(list)
    for p in parameters:
        groups[rates.get(p, rate), decay if p.dim() >= 2 else 0.0].append(p)
    used = [
        {"params": found, "lr": lr, "weight_decay": its_decay}
        for (lr, its_decay), found in groups.items()
    ]
    return [*muon, AdamW(used, config.betas, placement)]
