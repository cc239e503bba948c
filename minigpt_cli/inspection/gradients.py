"""What one batch of its own text would change in a model, parameter by parameter."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from minigpt_cli.config.schema import TrainConfig
from minigpt_cli.data.batches import training_batches
from minigpt_cli.data.dataset import Dataset
from minigpt_cli.device import reraise_out_of_memory
from minigpt_cli.model.gpt import GPT
from minigpt_cli.runs.checkpoint import Checkpoint

EXPLODING = 1.0
"""A gradient longer than its own weights, and than this, is said to explode."""

State = Literal["fine", "dead", "exploding", "no gradient"]


@dataclass(frozen=True)
class ParameterGradient:
    """One parameter's share in the step that a batch asks for."""

    name: str
    shape: tuple[int, ...]
    gradient_norm: float | None
    """Euclidean; None where the backward pass never came by."""
    weight_norm: float

    @property
    def ratio(self) -> float | None:
        """Of gradient to weights; None without a gradient, and where all weights are 0."""
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
        return "fine" if self.gradient_norm <= longest else "exploding"  # nan is not below it


@dataclass(frozen=True)
class Gradients:
    """One batch, forward and backward."""

    step: int
    """Whose batch it is (the first, where a step has several): the step after the checkpoint's."""
    as_in_run: bool
    """Whether batch size and seed are the run's, or only the defaults."""
    windows: int
    tokens: int
    loss: float
    """Nats per token."""
    norm: float
    """Of all gradients together, which gradient clipping looks at."""
    parameters: tuple[ParameterGradient, ...]
    """As the model lists them; a tied head is its embedding."""


def own_gradients(checkpoint: Checkpoint, dataset: Dataset) -> Gradients:
    """Measures the batch that the run takes next from these weights, without dropout.

    A checkpoint of minigpt 0.1.0 does not record its batch size and seed: the defaults are used.

    Raises:
        CorpusError: the training text is shorter than one window.
        OutOfMemoryError: memory ran out.
    """
    metadata = checkpoint.metadata
    train = metadata.train or TrainConfig()
    batches = training_batches(dataset.tokens("train"), metadata.model, metadata.data, train)
    x, y = batches.batch(metadata.step * train.grad_accum_steps)
    with reraise_out_of_memory("look at a checkpoint of a smaller model"):
        return measure(
            checkpoint.model, x, y, metadata.step + 1, as_in_run=metadata.train is not None
        )


def measure(model: GPT, x: Tensor, y: Tensor, step: int = 1, as_in_run: bool = False) -> Gradients:
    """Runs one batch forward and backward, without dropout; the model stays as it is.

    Args:
        model: whose parameters are looked at; those that are frozen have no gradient.
        x: token ids, (B, T).
        y: the tokens that came next, (B, T).
        step: whose batch it is.
        as_in_run: whether a run took this batch.
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
