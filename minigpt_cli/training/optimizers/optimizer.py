"""The optimizer of a model: which part of it is trained by what, and its state by name."""

from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from minigpt_cli.config.schema import OptimizerConfig
from minigpt_cli.language import _
from minigpt_cli.model.gpt import GPT
from minigpt_cli.model.layers import Linear
from minigpt_cli.runs.checkpoint_header import damaged
from minigpt_cli.training.optimizers.adamw import AdamW
from minigpt_cli.training.optimizers.averages import WeightAverage
from minigpt_cli.training.optimizers.muon import Muon
from minigpt_cli.training.optimizers.updater import HERE, Placement, Updater


class Optimizer:
    """One or two optimizers that update a model, but for frozen weights; state is by name."""

    def __init__(self, model: GPT, config: OptimizerConfig, placement: Placement = HERE) -> None:
        self._names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
        self.placement = placement
        self._parts = _build(model, config, placement)
        self._average = None
        if config.ema_decay:
            trained = [p for p in self._names if p.requires_grad]
            self._average = WeightAverage(trained, config.ema_decay, placement)
        self._stateful: list[Updater] = [*self._parts, *filter(None, [self._average])]
        self._places = {
            f"{self._names[parameter]}.{key}": (part, parameter, key)
            for part in self._stateful
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

    def update_average(self, step: int) -> None:
        """To be called after each step, of which `step` came before it."""
        if self._average is not None:
            self._average.update(step)

    def averaged(self) -> AbstractContextManager[None]:
        """Inside this context the model has its averaged weights, if they are kept."""
        return nullcontext() if self._average is None else self._average.applied()

    def zero_grad(self) -> None:
        for parameter in self._names:
            parameter.grad = None

    def state_tensors(self) -> dict[str, Tensor]:
        """All state that resuming needs, by `<parameter>.<state>`."""
        return {
            f"{self._names[parameter]}.{key}": value
            for part in self._stateful
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
        for part in self._stateful:
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
