"""A model that learns: one optimizer step at a time.

Everything random in a step (its batch, its dropout) is a function of the seed and the step, so a
run that is interrupted and resumed equals one that was never interrupted.
"""

import fnmatch
import time

import torch
from torch import Tensor, nn

from minigpt_cli.config.schema import RunConfig
from minigpt_cli.data.ahead import BatchesAhead
from minigpt_cli.data.batches import BatchSampler, training_batches
from minigpt_cli.data.dataset import Dataset
from minigpt_cli.device import pick_dtype, reraise_out_of_memory, synchronize
from minigpt_cli.errors import ConfigError
from minigpt_cli.io.memory import keep_freed_memory
from minigpt_cli.model.compilation import compile_blocks
from minigpt_cli.model.flops import forward_flops_per_token
from minigpt_cli.model.gpt import GPT, copy_weights
from minigpt_cli.training.lora import add_adapters, draw_adapters
from minigpt_cli.training.optimizer import Optimizer
from minigpt_cli.training.schedule import lr_scale
from minigpt_cli.training.stability import check_finite

_SMALLER = (
    "try a smaller train.batch_size (with more train.grad_accum_steps), model.block_size or "
    "model.n_embd"
)


class Learner:
    """A model with its optimizer and its batches. It knows nothing of runs and their files.

    Args:
        config: with device, precision and compilation resolved (see `setup.resolve_machine`).
        dataset: prepared with `config.data`.
        initial: the model to begin from; None draws new weights.

    Raises:
        CorpusError: the text is too short for the model's `block_size`.
        OutOfMemoryError: the model does not fit into memory.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, initial: GPT | None = None) -> None:
        self.config, self.dataset = config, dataset
        train = config.train
        self.device = torch.device(train.device)
        keep_freed_memory()
        if train.threads:  # sums in another order differ in their last digits
            torch.set_num_threads(train.threads)
        batches = training_batches(
            dataset.tokens("train"), config.model, config.data, train, dataset.train_parts
        )
        self.batches: BatchSampler | BatchesAhead = batches
        if self.device.type == "cuda":
            self.batches = BatchesAhead(batches.batch, pin=True)
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
            self.model = model.to(self.device)
        self.model.compute_dtype = pick_dtype(train.precision, self.device)
        self.optimizer = Optimizer(self.model, config.optimizer)
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

    @reraise_out_of_memory(_SMALLER)
    def rehearse(self) -> float:
        """Seconds that one forward and backward pass takes; nothing is learned.

        Raises:
            OutOfMemoryError: memory ran out.
        """
        self.model.train()
        started = time.perf_counter()
        loss = self.model(*self._to_device(*self.batches.batch(0)))
        loss.backward()
        loss.item()  # waits for the device
        self.optimizer.zero_grad()
        synchronize(self.device)
        return time.perf_counter() - started

    def compile(self) -> str | None:
        """Compiles the model's blocks; returns why it could not, or None."""
        self.model.train()
        return compile_blocks(self.model, *self._to_device(*self.batches.batch(0)))

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
        train = self.config.train
        self.model.train()
        torch.manual_seed(_dropout_seed(train.seed, step))
        self.optimizer.set_lr(lr_scale(self.config.optimizer, step, train.max_iters))
        total = torch.zeros((), device=self.device)
        for i in range(train.grad_accum_steps):
            x, y = self.batches.batch(step * train.grad_accum_steps + i)
            loss = self.model(*self._to_device(x, y)) / train.grad_accum_steps
            loss.backward()
            total += loss.detach()
        parameters = list(self.model.parameters())
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.check_interval == 1:
            check_finite(step + 1, loss=total.item(), gradient_norm=norm.item())
        if self.config.optimizer.grad_clip:
            nn.utils.clip_grads_with_norm_(parameters, self.config.optimizer.grad_clip, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total, norm

    def check_weights(self, step: int) -> None:
        """Raises `NotFinite` if a weight is not finite after `step` steps."""
        norm = nn.utils.get_total_norm(list(self.model.parameters()))
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
                f"train.freeze = {pattern}: matches no weight; they have names like "
                f"{', '.join(list(named)[:3])}"
            )
        for name in found:
            named[name].requires_grad_(False)
    if not any(weight.requires_grad for weight in named.values()):
        raise ConfigError("train.freeze: leaves no weight to train; freeze fewer")


def _dropout_seed(seed: int, step: int) -> int:
    """Distinct for every pair, and far from the seed of the initial weights."""
    return (seed << 31) + step + (1 << 62)
