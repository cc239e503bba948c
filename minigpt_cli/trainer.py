"""The training loop. It computes, saves and reports; it never prints.

Everything random in a step (its batch, its dropout) is a function of the seed and the step, so a
run that is interrupted and resumed is the run that was never interrupted.
"""

import json
import math
import time
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from minigpt_cli import __version__
from minigpt_cli.checkpoint import (
    load_model_tensors,
    model_tensors,
    read_tensors,
    save_checkpoint,
    write_tensors,
)
from minigpt_cli.checkpoint_header import CheckpointFacts, read_header
from minigpt_cli.compilation import compile_blocks, eagerly, pays
from minigpt_cli.config import RunConfig
from minigpt_cli.dataset import BatchSampler, Dataset
from minigpt_cli.device import (
    dtype_name,
    keep_freed_memory,
    matmul_flops,
    out_of_memory_explained,
    pick_device,
    pick_dtype,
)
from minigpt_cli.errors import CheckpointError, TrainingError
from minigpt_cli.evaluation import Evaluation, evaluate
from minigpt_cli.flops import forward_flops_per_token
from minigpt_cli.generation import generate
from minigpt_cli.model import GPT
from minigpt_cli.optim import Optimizer, lr_scale
from minigpt_cli.reports import EvaluationReport, Reporter, StepReport, TrainResult
from minigpt_cli.run_folder import RunFolder
from minigpt_cli.sampling import Sampling

_SMALLER = (
    "try a smaller --batch-size (and more --set train.grad_accum_steps), --set model.block_size or "
    "model.n_embd"
)
RECENT_STEPS = 50
"""The training loss that is reported is the mean of at most so many last steps."""


@dataclass
class TrainState:
    """What the loop itself has to remember beside weights and optimizer."""

    step: int = 0
    best_val_loss: float = math.inf
    best_step: int = 0
    elapsed: float = 0.0
    step_seconds: float = 0.0
    recent_losses: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_STEPS))

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "recent_losses": list(self.recent_losses)})

    @classmethod
    def from_json(cls, text: str) -> "TrainState":
        values = json.loads(text)
        values["recent_losses"] = deque(values["recent_losses"], maxlen=RECENT_STEPS)
        return cls(**values)


class Trainer:
    """Trains one model on one dataset.

    Args:
        config: with device, precision and compilation resolved (see `resolve_machine`).
        dataset: prepared with `config.data`.
        folder: where checkpoints, state and metrics go; None keeps nothing (for a dry run).

    Raises:
        CorpusError: the text is too short for the model's `block_size`.
        OutOfMemoryError: the model does not fit into memory.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, folder: RunFolder | None) -> None:
        self.config, self.dataset, self.folder = config, dataset, folder
        train = config.train
        self.device = torch.device(train.device)
        keep_freed_memory()
        self.batches = BatchSampler(
            dataset.tokens("train"),
            train.batch_size,
            config.model.block_size,
            train.seed,
            config.data.sampling,
        )
        self._validation = dataset.tokens("val")
        torch.manual_seed(train.seed)
        with out_of_memory_explained(_SMALLER):
            self.model = GPT(config.model, dataset.tokenizer.vocab_size).to(self.device)
        self.model.compute_dtype = pick_dtype(train.precision, self.device)
        self.optimizer = Optimizer(self.model, config.optimizer)
        self.state = TrainState()
        self.stop_requested = False
        """Set it (from a signal handler, say) to end the run after the step in progress."""
        self._session_seconds, self._session_steps = 0.0, 0
        self._saved_at = 0.0
        self._peak_flops = math.inf
        # Reading a loss makes the processor wait for an accelerator: there, only now and then.
        self._check_interval = 1 if self.device.type == "cpu" else train.log_interval
        self._unchecked: list[Tensor] = []

    @property
    def tokens_per_step(self) -> int:
        train = self.config.train
        return train.batch_size * train.grad_accum_steps * self.config.model.block_size

    @property
    def tokens_per_second(self) -> float:
        return self._session_steps * self.tokens_per_step / max(self._session_seconds, 1e-9)

    @property
    def utilisation(self) -> float:
        """Model FLOPs utilisation (Chowdhery et al. 2022), against the measured peak."""
        per_token = 3 * forward_flops_per_token(self.config.model, self.model.vocab_size)
        return self.tokens_per_second * per_token / self._peak_flops

    def fit(self, reporter: Reporter) -> TrainResult:
        """Trains to `max_iters`, or until `stop_requested`.

        Raises:
            TrainingError: the loss is no longer a number.
            OutOfMemoryError: memory ran out.
            CheckpointError: a checkpoint cannot be written.
        """
        train = self.config.train
        before, started = self.state.elapsed, time.perf_counter()
        self._saved_at = started
        self._peak_flops = matmul_flops(self.device, self.model.compute_dtype)
        if train.compile == "on":
            self._compile(reporter)
        while self.state.step < train.max_iters and not self.stop_requested:
            step = self.state.step + 1
            evaluates = step == train.max_iters or step % train.eval_interval == 0
            logs = evaluates or step % train.log_interval == 0 or step == 1
            checks = logs or step % self._check_interval == 0
            self._timed_step(checks)
            if checks:
                report = self._step_report()
                reporter.stepped(report)
                if logs and self.folder:
                    self.folder.append_metrics({"type": "step", **asdict(report)})
            self.state.elapsed = before + time.perf_counter() - started
            if evaluates:
                self._evaluate_and_save(reporter)
                self.state.elapsed = before + time.perf_counter() - started
            elif self._save_is_due():
                self._check_losses()
                self._save_state()
        if self.stop_requested and self.state.step < train.max_iters:
            self._check_losses()
            self._save_interrupted()
        return self._result()

    @out_of_memory_explained(_SMALLER)
    def train_step(self) -> Tensor:
        """One optimizer step; returns the batch's mean loss, still on the device.

        Raises:
            OutOfMemoryError: memory ran out.
        """
        train, step = self.config.train, self.state.step
        torch.manual_seed(_dropout_seed(train.seed, step))
        self.optimizer.set_lr(lr_scale(self.config.optimizer, step, train.max_iters))
        total = torch.zeros((), device=self.device)
        for i in range(train.grad_accum_steps):
            x, y = self.batches.batch(step * train.grad_accum_steps + i)
            loss = self.model(*self._to_device(x, y)) / train.grad_accum_steps
            loss.backward()
            total += loss.detach()
        if self.config.optimizer.grad_clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total

    def _to_device(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if self.device.type == "cuda":  # from pinned memory the copy does not wait for the GPU
            x, y = x.pin_memory(), y.pin_memory()
        return x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)

    def _compile(self, reporter: Reporter) -> None:
        self.model.train()
        reason = compile_blocks(self.model, *self._to_device(*self.batches.batch(0)))
        if reason is not None:
            reporter.noted(f"Going on without compiling: {reason}")

    def _timed_step(self, checks: bool) -> None:
        """A step, and with `checks` the wait until the device has really done it."""
        self.model.train()
        started = time.perf_counter()
        self._unchecked.append(self.train_step())
        self.state.step += 1
        if checks:
            self._check_losses()
        seconds = time.perf_counter() - started
        self.state.step_seconds += seconds
        self._session_seconds += seconds
        self._session_steps += 1

    def _check_losses(self) -> None:
        """Fetches the losses that are still on the device and refuses any that is no number."""
        first = self.state.step - len(self._unchecked) + 1
        values = [loss.item() for loss in self._unchecked]
        self._unchecked.clear()
        self.state.recent_losses.extend(values)
        for step, value in enumerate(values, start=first):
            self._refuse_non_finite("loss", step, value)

    def _refuse_non_finite(self, what: str, step: int, value: float) -> None:
        if math.isfinite(value):
            return
        config = self.config.optimizer
        rate = config.learning_rate * lr_scale(config, step - 1, self.config.train.max_iters)
        kept = "no checkpoint was saved yet"
        if self.folder and self.folder.checkpoint.exists():
            kept = f"the last good checkpoint is {self.folder.checkpoint}"
        raise TrainingError(
            f"the {what} is {value} at step {step} (learning rate {rate:.2g}); try a smaller "
            "--learning-rate, --set optimizer.grad_clip=1.0 or a larger optimizer.warmup_iters; "
            f"{kept}"
        )

    def _step_report(self) -> StepReport:
        config, step = self.config.optimizer, self.state.step
        return StepReport(
            step=step,
            loss=self.state.recent_losses[-1],
            learning_rate=config.learning_rate
            * lr_scale(config, step - 1, self.config.train.max_iters),
            tokens_per_second=self.tokens_per_second,
        )

    def _evaluate_and_save(self, reporter: Reporter) -> None:
        with self._eagerly():
            result = evaluate(
                self.model, self.dataset.tokenizer, self._validation, self.config.train.eval_tokens
            )
        self._refuse_non_finite("validation loss", self.state.step, result.loss)
        is_best = result.loss < self.state.best_val_loss
        if is_best:
            self.state.best_val_loss, self.state.best_step = result.loss, self.state.step
        recent = self.state.recent_losses
        report = EvaluationReport(
            step=self.state.step,
            train_loss=sum(recent) / len(recent),
            val_loss=result.loss,
            bits_per_byte=result.bits_per_byte,
            is_best=is_best,
            tokens_per_second=self.tokens_per_second,
            utilisation=self.utilisation,
            elapsed=self.state.elapsed,
        )
        if self.folder:
            self.folder.append_metrics({"type": "evaluation", **asdict(report)})
            if is_best:
                save_checkpoint(self.folder.checkpoint, self.model, self._facts(result))
            self._save_state()
        reporter.evaluated(report)
        if self.config.train.sample_tokens:
            reporter.sampled(self._sample())

    def _sample(self) -> str:
        """What the model writes now, from nothing; its randomness is its own."""
        sampling = Sampling(seed=self.state.step)
        count = self.config.train.sample_tokens
        with self._eagerly():
            return "".join(generate(self.model, self.dataset.tokenizer, "", count, sampling))

    def _eagerly(self) -> AbstractContextManager[None]:
        return eagerly() if self.config.train.compile == "on" else nullcontext()

    def _facts(self, result: Evaluation | None) -> CheckpointFacts:
        recent = self.state.recent_losses
        return CheckpointFacts(
            version=__version__,
            model=self.config.model,
            vocab_size=self.model.vocab_size,
            tokenizer=self.dataset.tokenizer.to_json(),
            data=self.config.data,
            corpus=self.dataset.facts.corpus,
            fingerprint=self.dataset.facts.fingerprint,
            step=self.state.step,
            train_loss=sum(recent) / len(recent) if recent else None,
            val_loss=result.loss if result else None,
            bits_per_byte=result.bits_per_byte if result else None,
        )

    def _save_interrupted(self) -> None:
        if self.folder:
            self._save_state()
            if not self.folder.checkpoint.exists():
                save_checkpoint(self.folder.checkpoint, self.model, self._facts(None))

    def _save_is_due(self) -> bool:
        seconds = self.config.train.save_every_seconds
        return self.folder is not None and 0 < seconds <= time.perf_counter() - self._saved_at

    def _save_state(self) -> None:
        assert self.folder is not None
        self._saved_at = time.perf_counter()
        tensors = {f"model.{name}": t for name, t in model_tensors(self.model).items()}
        tensors |= {f"optimizer.{name}": t for name, t in self.optimizer.state_tensors().items()}
        metadata = {
            "format": "minigpt-state",
            "state": self.state.to_json(),
            "config": self.config.model_dump_json(),
            "fingerprint": self.dataset.facts.fingerprint,
        }
        write_tensors(self.folder.state, tensors, metadata)

    def resume(self) -> None:
        """Takes up the run in `folder` where its state was last saved.

        Raises:
            CheckpointError: there is no state, it is damaged, or it belongs to another text.
        """
        assert self.folder is not None
        path = self.folder.state
        tensors, metadata = read_tensors(path)
        if metadata.get("format") != "minigpt-state":
            raise CheckpointError(f"{path}: not the state of a run; use another copy")
        if metadata["fingerprint"] != self.dataset.facts.fingerprint:
            raise CheckpointError(
                f"{path}: was trained on another text or tokenizer (fingerprint "
                f"{metadata['fingerprint']}, now {self.dataset.facts.fingerprint}); "
                "bring the text back as it was, or train anew"
            )
        weights, optimizer = (
            {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            for prefix in ("model.", "optimizer.")
        )
        load_model_tensors(self.model, weights, path)
        self.optimizer.load_state_tensors(optimizer)
        self.state = TrainState.from_json(metadata["state"])
        self.folder.cut_metrics(self.state.step)

    def _result(self) -> TrainResult:
        state = self.state
        return TrainResult(
            step=state.step,
            finished=state.step >= self.config.train.max_iters,
            best_val_loss=state.best_val_loss if state.best_step else None,
            best_step=state.best_step,
            elapsed=state.elapsed,
            step_seconds=state.step_seconds,
            tokens_per_second=self.tokens_per_second,
            utilisation=self.utilisation,
        )


def saved_config(state: Path) -> RunConfig:
    """The configuration that a run's state was trained with.

    Raises:
        CheckpointError: the file is missing, damaged, or not the state of a run.
    """
    metadata = read_header(state).metadata
    try:
        return RunConfig.model_validate_json(metadata["config"])
    except (KeyError, ValueError):
        raise CheckpointError(f"{state}: not the state of a run; use another copy") from None


def resolve_machine(config: RunConfig) -> RunConfig:
    """The same configuration with `auto` replaced by what this machine has and does best.

    What is resolved is what the run folder records, so that a resumed run computes alike.

    Raises:
        ConfigError: the device is not on this machine.
    """
    device = pick_device(config.train.device)
    resolved = {
        "device": str(device),
        "precision": dtype_name(pick_dtype(config.train.precision, device)),
        "compile": "on" if pays(config.train.compile, device, config.train.max_iters) else "off",
    }
    train = config.train.model_copy(update=resolved)
    return config.model_copy(update={"train": train})


def _dropout_seed(seed: int, step: int) -> int:
    """Distinct for every pair, and far from the seed that the weights were drawn with."""
    return (seed << 31) + step + (1 << 62)
