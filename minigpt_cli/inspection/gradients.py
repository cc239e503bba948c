"""The gradients of one training batch, parameter by parameter."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from minigpt_cli.config.schema import TrainConfig
from minigpt_cli.data.batches import training_batches
from minigpt_cli.data.dataset import Dataset
from minigpt_cli.device import reraise_out_of_memory
from minigpt_cli.language import _
from minigpt_cli.model.gpt import GPT
from minigpt_cli.runs.checkpoint import Checkpoint
from minigpt_cli.training.learner import freeze
from minigpt_cli.training.lora import separate

EXPLODING = 1.0
"""A gradient whose norm exceeds both this and the norm of its weights is exploding."""

State = Literal["fine", "dead", "exploding", "no gradient"]


@dataclass(frozen=True)
class ParameterGradient:
    """One parameter and its gradient."""

    name: str
    shape: tuple[int, ...]
    gradient_norm: float | None
    """Euclidean; None when the backward pass does not reach the parameter."""
    weight_norm: float

    @property
    def ratio(self) -> float | None:
        """Gradient norm over weight norm; None without a gradient, or when all weights are 0."""
        if self.gradient_norm is None or self.weight_norm == 0:
            return None
        return self.gradient_norm / self.weight_norm

    @property
    def state(self) -> State:
        if self.gradient_norm is None:
            return "no gradient"
        if self.gradient_norm == 0:
            return "dead"
        longest = max(EXPLODING, self.weight_norm)
        return "fine" if self.gradient_norm <= longest else "exploding"  # NaN compares false


@dataclass(frozen=True)
class Gradients:
    """One batch, forward and backward."""

    step: int
    """The step after the checkpoint's; of several batches in a step, the first is used."""
    as_in_run: bool
    """Whether batch size and seed are the run's, rather than the defaults."""
    windows: int
    tokens: int
    loss: float
    """Nats per token."""
    norm: float
    """Global gradient norm, as used by gradient clipping."""
    parameters: tuple[ParameterGradient, ...]
    """In the order of the model; a tied head is listed as its embedding. Of a run that trained
    adapters, those only."""


def own_gradients(checkpoint: Checkpoint, dataset: Dataset) -> Gradients:
    """Measures the batch that the run takes next with the model as it was saved, without dropout.

    A checkpoint of minigpt 0.1.0 does not record its batch size and seed: the defaults are used.
    Of a run with frozen weights or adapters, the model of `checkpoint` becomes what learned there.

    Raises:
        CorpusError: the training text is shorter than one window.
        OutOfMemoryError: memory ran out.
    """
    metadata = checkpoint.metadata
    train = metadata.train or TrainConfig()
    batches = training_batches(
        dataset.tokens("train"), metadata.model, metadata.data, train, dataset.train_parts
    )
    x, y = batches.batch(metadata.step * train.grad_accum_steps)
    if metadata.lora is not None:
        separate(checkpoint.model, metadata.lora, checkpoint.adapters)
    else:
        freeze(checkpoint.model, train.freeze)
    with reraise_out_of_memory(_("use a checkpoint of a smaller model")):
        found = measure(
            checkpoint.model, x, y, metadata.step + 1, as_in_run=metadata.train is not None
        )
    if metadata.lora is None:
        return found
    adapters = tuple(one for one in found.parameters if one.name in checkpoint.adapters)
    return replace(found, parameters=adapters)


def measure(model: GPT, x: Tensor, y: Tensor, step: int = 1, as_in_run: bool = False) -> Gradients:
    """Runs a batch forward and backward, without dropout and without changing the model.

    Token ids and the next tokens are (B, T); `as_in_run` is whether the run uses this batch.
    """
    device = model.head.weight.device
    named = dict(model.named_parameters())
    trained = {name: p for name, p in named.items() if p.requires_grad}
    with model.evaluating(), torch.enable_grad():
        loss = model(x.to(device), y.to(device))
        found = torch.autograd.grad(loss, [*trained.values()], allow_unused=True)
    norms = {
        name: None if gradient is None else float(gradient.norm())
        for name, gradient in zip(trained, found, strict=True)
    }
    return Gradients(
        step=step,
        as_in_run=as_in_run,
        windows=x.size(0),
        tokens=x.numel(),
        loss=float(loss.detach()),
        norm=math.hypot(*(norm for norm in norms.values() if norm is not None)),
        parameters=tuple(
            ParameterGradient(name, tuple(p.shape), norms.get(name), float(p.detach().norm()))
            for name, p in named.items()
        ),
    )
