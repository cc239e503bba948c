"""A model that learns: one optimizer step at a time.

Everything random in a step (its batch, its dropout) is a function of the seed and the step, so a
run that is interrupted and resumed equals one that was never interrupted. It is also the same for
any number of processes: each computes its share of the step's windows.
"""

import fnmatch
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt_cli.config.schema import RunConfig, TrainConfig
from minigpt_cli.data.ahead import BatchesAhead
from minigpt_cli.data.batches import training_batches
from minigpt_cli.data.dataset import Dataset
from minigpt_cli.device import pick_dtype, reraise_out_of_memory, synchronize
from minigpt_cli.errors import ConfigError
from minigpt_cli.io.memory import keep_freed_memory
from minigpt_cli.language import _, mark
from minigpt_cli.model.compilation import compile_blocks
from minigpt_cli.model.flops import forward_flops_per_token
from minigpt_cli.model.gpt import GPT, copy_weights
from minigpt_cli.training.activations import checkpoint_activations
from minigpt_cli.training.lora import add_adapters, draw_adapters, merged
from minigpt_cli.training.optimizers.optimizer import Optimizer
from minigpt_cli.training.parallel.distributed import ALONE, Group
from minigpt_cli.training.parallel.strategy import strategy_for
from minigpt_cli.training.schedule import lr_scale
from minigpt_cli.training.stability import check_finite

_SMALLER = mark(
    "try a smaller train.batch_size (with more train.grad_accum_steps), model.block_size or "
    "model.n_embd"
)


@dataclass(frozen=True)
class Pass:
    """A forward and backward pass of a step."""

    first: int
    """The first of its windows in the step."""
    count: int
    """Number of windows."""
    weight: float
    """What its mean loss is divided by, so that the sum over all passes is the step's mean."""


def passes_of(group: Group, train: TrainConfig, in_lockstep: bool) -> list[Pass]:
    """A process's passes of every step.

    Args:
        group: the processes.
        train: says how many windows a step and a pass have.
        in_lockstep: whether all processes need the same number of passes. Where the windows do not
            suffice, the last pass of some repeats one to no effect.

    Raises:
        ConfigError: there are more processes than windows.
    """
    size, windows = train.batch_size, train.batch_size * train.grad_accum_steps
    if windows < group.size:
        raise ConfigError(
            _(
                "train.batch_size × train.grad_accum_steps = {sequences} sequences per step cannot "
                "be shared among {processes} processes; start at most {sequences}, or use larger "
                "batches"
            ).format(sequences=windows, processes=group.size),
            (f"train.batch_size={group.size}",),
        )
    mine = group.share(windows)
    passes = [
        Pass(first, count, windows / count)
        for first in range(mine.start, mine.stop, size)
        for count in [min(size, mine.stop - first)]
    ]
    largest_share = -(-windows // group.size)
    most = -(-largest_share // size)
    if in_lockstep and len(passes) < most:
        passes.append(Pass(mine.start, 1, math.inf))
    return passes


class Learner:
    """A model with its optimizer and its batches. It knows nothing of runs and their files.

    Args:
        config: with device, precision and compilation resolved (see `setup.resolve_machine`).
        dataset: prepared with `config.data`.
        initial: the model to begin from; None draws new weights.
        group: the processes that train it together.

    Raises:
        ConfigError: a setting does not suit the model, the device or the processes.
        CorpusError: the text is too short for the model's `block_size`.
        OutOfMemoryError: the model does not fit into memory.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        initial: GPT | None = None,
        group: Group = ALONE,
    ) -> None:
        self.config, self.dataset, self.group = config, dataset, group
        train = config.train
        self.device = group.device(torch.device(train.device))
        keep_freed_memory()
        if train.threads:  # sums in another order differ in their last digits
            torch.set_num_threads(train.threads)
        self.batches = training_batches(
            dataset.tokens("train"), config.model, config.data, train, dataset.train_parts
        )
        torch.manual_seed(train.seed)
        with reraise_out_of_memory(_SMALLER):
            model = GPT(config.model, dataset.tokenizer.vocab_size)
            model.initialize()
            if initial is not None:
                copy_weights(initial, model)
            freeze(model, train.freeze)
            if config.lora is not None:
                add_adapters(model, config.lora)
                draw_adapters(model)
            model.compute_dtype = pick_dtype(train.precision, self.device)
            if train.activation_checkpointing:
                checkpoint_activations(model)
            self.strategy = strategy_for(config, group, model, self.device)
            self.model = self.strategy.place(model, self.device)
        self._passes = passes_of(group, train, self.strategy.in_lockstep)
        self._ahead = BatchesAhead(self._windows, pin=True) if self.device.type == "cuda" else None
        self.optimizer = Optimizer(self.model, config.optimizer, self.strategy)
        self.expected_seconds: float | None = None
        """About how long the whole run takes, if that was measured."""
        self.check_interval = 1 if self.device.type == "cpu" else train.log_interval
        """Steps between looks at the losses: reading one makes the CPU wait for an accelerator."""

    @property
    def tokens_per_step(self) -> int:
        train = self.config.train
        return train.batch_size * train.grad_accum_steps * self.config.model.block_size

    @property
    def flops_per_token(self) -> int:
        """FLOPs of the forward and backward pass for one token.

        With adapters, the backward pass computes no gradients of the model's own weights.
        """
        passes = 3 if self.config.lora is None else 2
        return passes * forward_flops_per_token(self.config.model, self.model.vocab_size)

    @property
    def passes_per_step(self) -> int:
        """Forward and backward passes of this process in every step."""
        return len(self._passes)

    @reraise_out_of_memory(_SMALLER)
    def rehearse(self) -> float:
        """Seconds that this process's longest pass takes; nothing is learned.

        Raises:
            OutOfMemoryError: memory ran out.
        """
        self.model.train()
        started = time.perf_counter()
        with self.group.watched():
            loss = self.model(*self._to_device(*self._first_windows()))
            loss.backward()
        loss.item()  # waits for the device
        self.optimizer.zero_grad()
        synchronize(self.device)
        return time.perf_counter() - started

    def compile(self) -> str | None:
        """Compiles the model's blocks; returns why it could not, or None."""
        self.model.train()
        return compile_blocks(self.model, *self._to_device(*self._first_windows()))

    def _first_windows(self) -> tuple[Tensor, Tensor]:
        """As many as the longest pass has, for trying the model out."""
        return self.batches.windows(0, max(each.count for each in self._passes))

    @reraise_out_of_memory(_SMALLER)
    def take_step(self, step: int) -> tuple[Tensor, Tensor]:
        """Takes one optimizer step.

        Args:
            step: how many steps came before.

        Returns:
            The batch's mean loss and the global gradient norm before clipping, both still on the
            device.

        Raises:
            OutOfMemoryError: memory ran out.
            NotFinite: one of the two is not finite; the weights are unchanged. Not raised with a
                `check_interval` above 1, where the caller finds out later.
        """
        train, strategy = self.config.train, self.strategy
        self.model.train()
        self.optimizer.set_lr(lr_scale(self.config.optimizer, step, train.max_iters))
        total = self._backward(step)
        parameters = list(self.model.parameters())
        norm = strategy.norm([p.grad for p in parameters if p.grad is not None])
        if self.check_interval == 1:
            check_finite(step + 1, loss=total.item(), gradient_norm=norm.item())
        if self.config.optimizer.grad_clip:
            strategy.clip_(parameters, self.config.optimizer.grad_clip, norm)
        self.optimizer.step()
        self.optimizer.update_average(step)
        self.optimizer.zero_grad()
        return total, norm

    def _backward(self, step: int) -> Tensor:
        """Computes the gradients of a step, over all processes, and the mean loss of its batch."""
        train = self.config.train
        # In double precision a sum of losses is exact, and so the same in any order.
        exact = torch.float32 if self.device.type == "mps" else torch.float64
        total = torch.zeros((), dtype=exact, device=self.device)
        for i, each in enumerate(self._passes):
            batch, place = divmod(each.first, train.batch_size)
            number = step * train.grad_accum_steps + batch
            torch.manual_seed(_dropout_seed(train.seed, number, place))
            number_here = step * len(self._passes) + i
            make = self._windows if self._ahead is None else self._ahead.batch
            x, y = make(number_here)
            with self.group.watched():
                self.strategy.begin_backward(is_last=i == len(self._passes) - 1)
                loss = self.model(*self._to_device(x, y)) / each.weight
                loss.backward()
            total += loss.detach()
        self.strategy.finish_backward()
        return self.group.sum_(total).float()

    def _windows(self, number: int) -> tuple[Tensor, Tensor]:
        """The windows of this process's `number`-th pass in the run."""
        step, i = divmod(number, len(self._passes))
        first = step * self.config.train.batch_size * self.config.train.grad_accum_steps
        return self.batches.windows(first + self._passes[i].first, self._passes[i].count)

    @contextmanager
    def evaluated_model(self) -> Iterator[GPT]:
        """The model that is evaluated and saved: with averaged weights, and adapters merged."""
        with self.optimizer.averaged(), merged(self.model) as model:
            yield model

    def check_weights(self, step: int) -> None:
        """Raises `NotFinite` if a weight is not finite after `step` steps."""
        norm = self.strategy.norm(list(self.model.parameters()))
        check_finite(step, norm_of_the_weights=norm.item())

    def _to_device(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if self.device.type == "cuda":  # copying from pinned memory does not wait for the GPU
            x, y = x.pin_memory(), y.pin_memory()
        return x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)


def freeze(model: GPT, patterns: tuple[str, ...]) -> None:
    """Excludes weights from training.

    Args:
        model: whose weights.
        patterns: of their names, with `*` for anything.

    Raises:
        ConfigError: a pattern matches nothing, or all of them leave nothing to train.
    """
    named = dict(model.named_parameters())
    for pattern in patterns:
        found = fnmatch.filter(named, pattern)
        if not found:
            raise ConfigError(
                _(
                    "train.freeze = {pattern}: matches no weight; they have names like {names}"
                ).format(pattern=pattern, names=_(", ").join(list(named)[:3]))
            )
        for name in found:
            named[name].requires_grad_(False)
    if not any(weight.requires_grad for weight in named.values()):
        raise ConfigError(_("train.freeze: leaves no weight to train; freeze fewer"))


def _dropout_seed(seed: int, batch: int, place: int) -> int:
    """The seed of a pass's dropout; far from the seed of the initial weights.

    Args:
        seed: of the run.
        batch: number of the micro-batch in the run.
        place: the first window in it; above 0 where processes share a micro-batch.
    """
    return (seed << 31) + batch + (place << 40) + (1 << 62)
