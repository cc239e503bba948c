"""How weights follow gradients: parameter groups, Muon, AdamW, and the learning rate's schedule."""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from minigpt_cli.config.schema import OptimizerConfig
from minigpt_cli.errors import CheckpointError
from minigpt_cli.model.gpt import GPT, Linear


def lr_scale(config: OptimizerConfig, step: int, max_iters: int) -> float:
    """The share of the peak learning rate at a step: a pure function, so resuming needs no state.

    Args:
        config: the schedule.
        step: 0 for the first update.
        max_iters: the length of the whole run.
    """
    warm = min(1.0, (step + 1) / max(1, config.warmup_iters))
    floor = config.min_lr / config.learning_rate
    if config.schedule == "constant":
        return warm
    if config.schedule == "cosine":
        after = max(0, step - config.warmup_iters) / max(1, max_iters - config.warmup_iters)
        fallen = 0.5 * (1 + math.cos(math.pi * min(1.0, after)))
    else:  # warm-up, stable, decay (Hu et al. 2024)
        fallen = min(1.0, max(0.0, max_iters - step) / (config.decay_fraction * max_iters))
    return min(warm, floor + (1 - floor) * fallen)


def learning_rate(config: OptimizerConfig, step: int, max_iters: int) -> float:
    """The rate that a step was made with, of the optimizer that `config` names.

    Args:
        config: the schedule and its peak.
        step: 1 for the first update, as steps are counted for people.
        max_iters: the length of the whole run.
    """
    return config.learning_rate * lr_scale(config, step - 1, max_iters)


class _Updater:
    """Parameters in groups, and what is remembered of each.

    Not `torch.optim.Optimizer`: the first one that is made imports PyTorch's compiler, which takes
    a second of every training's start.
    """

    remembers: ClassVar[dict[str, bool]]
    """What is kept of a parameter, and whether it has the parameter's shape or is one number."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self.param_groups = groups
        self.state: dict[Tensor, dict[str, Tensor]] = defaultdict(dict)


class Muon(_Updater):
    """Momentum whose update is made orthogonal (Jordan et al. 2024), many matrices at a time.

    Each matrix moves by lr · √max(1, rows/columns) along the nearest orthogonal matrix to its
    Nesterov momentum, found by five Newton–Schulz steps in bf16. `torch.optim.Muon` does the same
    one matrix after another; here all matrices of one shape go through each product together.

    Args:
        parameters: two-dimensional weights, each with the rows of the matrices stacked in it.
        lr: learning rate, about the size of an entry's change per step times √rows.
        momentum: share of the past gradients kept.
        weight_decay: decoupled, times the learning rate.
    """

    remembers: ClassVar = {"momentum_buffer": True}

    def __init__(
        self,
        parameters: list[tuple[Tensor, tuple[int, ...]]],
        lr: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        matrices = [parameter for parameter, _ in parameters]
        super().__init__([{"params": matrices, "lr": lr, "weight_decay": weight_decay}])
        self._rows, self._momentum = dict(parameters), momentum

    @torch.no_grad()
    def step(self) -> None:
        """Updates every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                buffer = state["momentum_buffer"].lerp_(p.grad, 1 - self._momentum)
                update = p.grad.lerp(buffer, self._momentum)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                for piece, target in zip(
                    update.split(self._rows[p]), p.split(self._rows[p]), strict=True
                ):
                    by_shape[piece.shape].append((piece, target))
            for (rows, columns), pairs in by_shape.items():
                stacked = torch.stack([piece for piece, _ in pairs])
                directions = newton_schulz(stacked).to(pairs[0][1].dtype)
                scale = group["lr"] * math.sqrt(max(1.0, rows / columns))
                torch._foreach_add_(
                    [target for _, target in pairs], list(directions.unbind()), alpha=-scale
                )


class AdamW(_Updater):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), by PyTorch's fused kernel.

    Args:
        groups: `params`, `lr` and `weight_decay` each.
        betas: shares of the past kept in the means of gradients and of their squares.
    """

    remembers: ClassVar = {"step": False, "exp_avg": True, "exp_avg_sq": True}

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float]) -> None:
        super().__init__(groups)
        self._betas = betas

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
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                parameters,
                [p.grad for p in parameters],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                steps,
                lr=group["lr"],
                beta1=self._betas[0],
                beta2=self._betas[1],
                weight_decay=group["weight_decay"],
                eps=1e-8,
                amsgrad=False,
                maximize=False,
            )


def newton_schulz(matrices: Tensor) -> Tensor:
    """Pushes all singular values of each matrix toward 1 by a quintic Newton–Schulz iteration.

    Args:
        matrices: (N, rows, columns).

    Returns:
        The same shape in bf16; singular values end between about 0.7 and 1.2.
    """
    a, b, c = 3.4445, -4.7750, 2.0315  # Jordan's coefficients: steepest at 0, for speed
    x = matrices.bfloat16()
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Optimizer:
    """One or two optimizers that step together, with their state by parameter name."""

    def __init__(self, model: GPT, config: OptimizerConfig) -> None:
        self._names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
        self._parts = _build(model, config)
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
        """Everything the next step depends on, by `<parameter>.<state>`."""
        return {
            f"{self._names[parameter]}.{key}": value
            for part in self._parts
            for parameter, state in part.state.items()
            for key, value in state.items()
        }

    def load_state_tensors(self, tensors: dict[str, Tensor], path: Path) -> None:
        """Takes back what `state_tensors` gave, in place of what is remembered now.

        Raises:
            CheckpointError: they are not this optimizer's; `path` is the file to name.
        """
        places = {
            f"{self._names[parameter]}.{key}": (part, parameter, key)
            for part in self._parts
            for group in part.param_groups
            for parameter in group["params"]
            for key in part.remembers
        }
        for name in sorted(places.keys() ^ tensors.keys()) if tensors else ():
            state = "missing" if name in places else "unexpected"
            raise CheckpointError(f"{path}: {name} is {state}; restore a backup, or train again")
        for part in self._parts:
            part.state.clear()
        for name, tensor in tensors.items():
            part, parameter, key = places[name]
            shape = parameter.shape if part.remembers[key] else torch.Size([])
            if (tensor.shape, tensor.dtype) != (shape, parameter.dtype):
                raise CheckpointError(
                    f"{path}: {name} is {tensor.dtype} {list(tensor.shape)} and should be "
                    f"{parameter.dtype} {list(shape)}; restore a backup, or train again"
                )
            if not tensor.isfinite().all():
                raise CheckpointError(
                    f"{path}: {name} contains NaN or infinity; restore a backup, or train again"
                )
            part.state[parameter][key] = tensor.to(parameter.device)


def _build(model: GPT, config: OptimizerConfig) -> list[Muon | AdamW]:
    """Puts every parameter into exactly one group.

    Muon takes the matrices of the blocks. AdamW takes the rest, or everything; it decays matrices
    when it has them all, as GPT-2's recipe does, and never norms or biases.
    """
    matrices: dict[Tensor, tuple[int, ...]] = {
        module.weight: module.rows
        for module in model.blocks.modules()
        if isinstance(module, Linear)
    }
    parameters = list(model.parameters())
    muon: list[Muon | AdamW] = []
    decay, rate = config.weight_decay, config.learning_rate
    if config.name == "muon":
        muon = [Muon(list(matrices.items()), config.learning_rate, config.momentum, decay)]
        parameters = [p for p in parameters if p not in matrices]
        decay, rate = 0.0, config.adamw_learning_rate
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "lr": rate, "weight_decay": decay},
        {"params": [p for p in parameters if p.dim() < 2], "lr": rate, "weight_decay": 0.0},
    ]
    return [*muon, AdamW([group for group in groups if group["params"]], config.betas)]
