"""What one batch of its own text would change in a model, parameter by parameter."""

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from minigpt_cli.config.loading import read_toml, resolve
from minigpt_cli.config.schema import TrainConfig
from minigpt_cli.data.batches import training_batches
from minigpt_cli.data.dataset import Dataset
from minigpt_cli.device import reraise_out_of_memory
from minigpt_cli.errors import ConfigError
from minigpt_cli.model.gpt import GPT
from minigpt_cli.runs.checkpoint import Checkpoint
from minigpt_cli.runs.checkpoint_header import CheckpointMetadata
from minigpt_cli.runs.folder import RunFolder

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
    """Whether batch size and seed are the run's, or only the usual ones."""
    windows: int
    tokens: int
    loss: float
    """Nats per token."""
    norm: float
    """Of all gradients together, which gradient clipping looks at."""
    parameters: tuple[ParameterGradient, ...]
    """As the model lists them; a tied head is its embedding."""


def own_gradients(checkpoint: Checkpoint, path: Path, dataset: Dataset) -> Gradients:
    """Measures the batch that the run takes next from these weights, without dropout.

    Where the run's `config.toml` does not lie beside the checkpoint, its batch size and seed are
    taken to be the usual ones.

    Raises:
        CorpusError: the training text is shorter than one window.
        OutOfMemoryError: memory ran out.
    """
    facts, run = checkpoint.metadata, _training(checkpoint.metadata, path)
    train = run or TrainConfig()
    batches = training_batches(dataset.tokens("train"), facts.model, facts.data, train)
    x, y = batches.batch(facts.step * train.grad_accum_steps)
    with reraise_out_of_memory("look at a checkpoint of a smaller model"):
        return measure(checkpoint.model, x, y, facts.step + 1, as_in_run=run is not None)


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


def _training(facts: CheckpointMetadata, path: Path) -> TrainConfig | None:
    """How the run was trained, if its configuration lies beside the checkpoint."""
    config = RunFolder(path.parent).config
    with suppress(ConfigError):  # there is none, or another program's
        run = resolve(read_toml(config), {}, str(config))
        if (run.model, run.data) == (facts.model, facts.data):
            return run.train
    return None
