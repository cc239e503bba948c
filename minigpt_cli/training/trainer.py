"""The training loop. It computes, saves and reports; it never prints.

Everything random in a step (its batch, its dropout) is a function of the seed and the step, so a
run that is interrupted and resumed is the run that was never interrupted.
"""

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict

import torch
from torch import Tensor, nn

from minigpt_cli import __version__
from minigpt_cli.config.schema import RunConfig
from minigpt_cli.data.batches import training_batches
from minigpt_cli.data.dataset import Dataset
from minigpt_cli.device import (
    keep_freed_memory,
    machine_info,
    matmul_flops,
    pick_dtype,
    reraise_out_of_memory,
)
from minigpt_cli.errors import CheckpointError, TrainingError
from minigpt_cli.evaluation import Evaluation, evaluate
from minigpt_cli.generation.sampling import Sampling
from minigpt_cli.generation.tokens import generate
from minigpt_cli.model.compilation import compile_blocks, eagerly
from minigpt_cli.model.flops import forward_flops_per_token
from minigpt_cli.model.gpt import GPT
from minigpt_cli.runs.checkpoint import checkpoint_file
from minigpt_cli.runs.checkpoint_header import CheckpointMetadata
from minigpt_cli.runs.folder import RunFolder
from minigpt_cli.runs.metrics import EvaluationReport, Reporter, StepReport, TrainResult
from minigpt_cli.runs.writer import RunWriter
from minigpt_cli.training.optimizer import Optimizer, learning_rate, lr_scale
from minigpt_cli.training.stability import (
    MOST_REWINDS,
    LossMonitor,
    NotFinite,
    check_finite,
    explanation,
)
from minigpt_cli.training.state import SavedRun, TrainState, restore_state, state_file

_SMALLER = (
    "try a smaller --batch-size (and more --set train.grad_accum_steps), --set model.block_size or "
    "model.n_embd"
)


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
        if train.threads:  # sums in another order have other last digits
            torch.set_num_threads(train.threads)
        self.batches = training_batches(dataset.tokens("train"), config.model, config.data, train)
        self._validation = dataset.tokens("val")
        torch.manual_seed(train.seed)
        with reraise_out_of_memory(_SMALLER):
            model = GPT(config.model, dataset.tokenizer.vocab_size)
            self.model = model.initialize().to(self.device)
        self.model.compute_dtype = pick_dtype(train.precision, self.device)
        self.optimizer = Optimizer(self.model, config.optimizer)
        self.state = TrainState()
        self.stop_requested = False
        """Set it (from a signal handler, say) to end the run after the step in progress."""
        self._session_seconds, self._session_steps = 0.0, 0
        self._peak_flops = math.inf
        # Reading a loss makes the processor wait for an accelerator: there, only now and then.
        self._check_interval = 1 if self.device.type == "cpu" else train.log_interval
        self._watch = LossMonitor()

    @property
    def tokens_per_step(self) -> int:
        train = self.config.train
        return train.batch_size * train.grad_accum_steps * self.config.model.block_size

    @property
    def tokens_per_second(self) -> float:
        return self._session_steps * self.tokens_per_step / max(self._session_seconds, 1e-9)

    @property
    def mfu(self) -> float:
        """Model FLOPs utilization (Chowdhery et al. 2022), against the measured peak."""
        per_token = 3 * forward_flops_per_token(self.config.model, self.model.vocab_size)
        return self.tokens_per_second * per_token / self._peak_flops

    def fit(self, reporter: Reporter) -> TrainResult:
        """Trains to `max_iters`, or until `stop_requested`.

        A step whose loss or gradient is not finite changes nothing: the run goes back to the state
        it saved last and comes again without that batch.

        Raises:
            TrainingError: numbers went wrong too often, or once with `on_nonfinite = "stop"`.
            OutOfMemoryError: memory ran out.
            CheckpointError: the state cannot be written, at the start or still at the end.
        """
        self._begin(reporter)
        while True:
            try:
                while self.state.step < self.config.train.max_iters and not self.stop_requested:
                    self._advance(reporter)
                self._check_everything()
                break
            except NotFinite as trouble:
                self._rewind(trouble, reporter)
        lacks_model = not self.state.best_step or self._writer.lost_checkpoint
        if lacks_model or self._writer.saved_step != self.state.step:
            self._save(self._checkpoint_metadata(None) if lacks_model else None)
        self._writer.finish()
        return self._result()

    def _begin(self, reporter: Reporter) -> None:
        toml = self.config.to_toml()
        if self.folder is not None:
            self.folder.write_config(toml)
        self._writer = RunWriter(self.folder, toml, reporter.noted)
        self._started = self._saved_at = time.perf_counter()
        self._elapsed_before = self.state.elapsed
        self._peak_flops = matmul_flops(self.device, self.model.compute_dtype)
        if self.config.train.compile == "on":
            self._compile(reporter)
        machine = {"step": self.state.step, "minigpt": __version__, **machine_info(self.device)}
        self._writer.row({"type": "machine", **machine})
        self._save(None)  # from here on there is something to resume and to go back to
        if self._writer.saved_step is None:
            self._writer.finish()

    def _advance(self, reporter: Reporter) -> None:
        """The next step, and what is due after it."""
        train, step = self.config.train, self.state.step + 1
        evaluates = step == train.max_iters or step % train.eval_interval == 0
        logs = evaluates or step % train.log_interval == 0 or step == 1
        checks = logs or step % self._check_interval == 0
        if step in self.state.skipped:
            self.state.step = step
        else:
            self._timed_step(checks)
            if checks:
                report = self._step_report()
                reporter.stepped(report)
                if logs:
                    self._writer.row({"type": "step", **asdict(report)})
        self._clock()
        if evaluates:
            self._evaluate_and_save(reporter)
            self._clock()
        elif self._save_is_due():
            self._check_everything()
            self._save(None)

    def _clock(self) -> None:
        self.state.elapsed = self._elapsed_before + time.perf_counter() - self._started

    @reraise_out_of_memory(_SMALLER)
    def train_step(self) -> tuple[Tensor, Tensor]:
        """One optimizer step.

        Returns:
            The batch's mean loss and the norm of all gradients together before clipping, both
            still on the device.

        Raises:
            OutOfMemoryError: memory ran out.
            NotFinite: one of the two is not finite; the weights are as before. On an accelerator
                `fit` finds out later, since looking would make it wait.
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
        parameters = list(self.model.parameters())
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self._check_interval == 1:
            check_finite(step + 1, loss=total.item(), gradient_norm=norm.item())
        if self.config.optimizer.grad_clip:
            nn.utils.clip_grads_with_norm_(parameters, self.config.optimizer.grad_clip, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total, norm

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
        loss, grad_norm = self.train_step()
        self.state.step += 1
        self._watch.add(self.state.step, loss, grad_norm)
        if checks:
            self._check_steps()
        seconds = time.perf_counter() - started
        self.state.step_seconds += seconds
        self._session_seconds += seconds
        self._session_steps += 1

    def _check_steps(self) -> None:
        """Looks at the numbers of the steps since the last time.

        Raises:
            NotFinite: one is not.
        """
        for found in self._watch.read(self.state.recent_losses):
            self._writer.row({"type": "spike", **asdict(found)})

    def _check_everything(self) -> None:
        """Lets a state pass that may be saved.

        Raises:
            NotFinite: it holds numbers that are none.
        """
        self._check_steps()
        norm = nn.utils.get_total_norm(list(self.model.parameters()))
        check_finite(self.state.step, norm_of_the_weights=norm.item())

    def _rewind(self, trouble: NotFinite, reporter: Reporter) -> None:
        """Goes back to the state that was saved last, to come again without the step's batch.

        Raises:
            TrainingError: that was done often enough, or is not wanted, or there is no way back.
        """
        skipped, step = self.state.skipped, trouble.step
        wanted = self.config.train.on_nonfinite == "rewind" and self.folder is not None
        if not wanted or len(skipped) >= MOST_REWINDS or step in skipped:
            raise self._explained(trouble) from None
        step_seconds = self.state.step_seconds
        try:
            self.resume()
        except CheckpointError as error:
            raise TrainingError(f"{self._explained(trouble)}; no way back: {error}") from None
        self._writer.forget_after(self.state.step)
        self.optimizer.zero_grad()
        self._watch.forget()
        self.state.step_seconds = step_seconds
        self.state.skipped = sorted({*skipped, step})
        self._save(None)  # a crash from here on must not meet the same batch again
        metadata = {"step": self.state.step, "skipped": step, "reason": str(trouble)}
        self._writer.row({"type": "rewind", **metadata})
        reporter.noted(
            f"{str(trouble).capitalize()}: back to step {self.state.step:,}, to go on without "
            f"that batch ({len(self.state.skipped)} of {MOST_REWINDS} such rewinds)"
        )

    def _explained(self, trouble: NotFinite) -> TrainingError:
        rate, rewinds = self._learning_rate(trouble.step), len(self.state.skipped)
        seen = explanation(trouble, rate, self._watch.recent_norms, rewinds)
        if self.folder is None:
            return TrainingError(seen)
        look = self.folder.command(f"inspect batch {trouble.step}")
        return TrainingError(f"{seen}; its text: {look}")

    def _learning_rate(self, step: int) -> float:
        """That a step was made with; the first is 1."""
        return learning_rate(self.config.optimizer, step, self.config.train.max_iters)

    def _step_report(self) -> StepReport:
        return StepReport(
            step=self.state.step,
            loss=self.state.recent_losses[-1],
            learning_rate=self._learning_rate(self.state.step),
            grad_norm=self._watch.recent_norms[-1],
            tokens_per_second=self.tokens_per_second,
        )

    def _evaluate_and_save(self, reporter: Reporter) -> None:
        self._check_everything()
        with self._eagerly():
            result = evaluate(
                self.model, self.dataset.tokenizer, self._validation, self.config.train.eval_tokens
            )
        check_finite(self.state.step, validation_loss=result.loss)
        best = self.state.best_val_loss
        if is_best := best is None or result.loss < best:
            self.state.best_val_loss, self.state.best_step = result.loss, self.state.step
        report = EvaluationReport(
            step=self.state.step,
            train_loss=self.state.recent_loss,
            val_loss=result.loss,
            bits_per_byte=result.bits_per_byte,
            is_best=is_best,
            tokens_per_second=self.tokens_per_second,
            mfu=self.mfu,
            elapsed=self.state.elapsed,
        )
        self._writer.row({"type": "evaluation", **asdict(report)})
        text = self._sample() if self.config.train.sample_tokens else None
        if text is not None:
            self._writer.row({"type": "sample", "step": self.state.step, "text": text})
        self._save(self._checkpoint_metadata(result) if is_best else None)
        reporter.evaluated(report)  # now that nothing can be lost by telling
        if text is not None:
            reporter.sampled(text)

    def _sample(self) -> str:
        """What the model writes now, from nothing; its randomness is its own."""
        sampling = Sampling(seed=self.state.step)
        count = self.config.train.sample_tokens
        with self._eagerly():
            return "".join(generate(self.model, self.dataset.tokenizer, "", count, sampling))

    def _eagerly(self) -> AbstractContextManager[None]:
        return eagerly() if self.config.train.compile == "on" else nullcontext()

    def _checkpoint_metadata(self, result: Evaluation | None) -> CheckpointMetadata:
        return CheckpointMetadata(
            version=__version__,
            model=self.config.model,
            vocab_size=self.model.vocab_size,
            tokenizer=self.dataset.tokenizer.to_json(),
            data=self.config.data,
            corpus=self.dataset.metadata.corpus,
            fingerprint=self.dataset.metadata.fingerprint,
            step=self.state.step,
            train_loss=self.state.recent_loss,
            val_loss=result.loss if result else None,
            bits_per_byte=result.bits_per_byte if result else None,
        )

    def _save_is_due(self) -> bool:
        seconds = self.config.train.save_every_seconds
        return self.folder is not None and 0 < seconds <= time.perf_counter() - self._saved_at

    def _save(self, metadata: CheckpointMetadata | None) -> None:
        """Saves the state, and with `metadata` the model beside it."""
        self._saved_at = time.perf_counter()
        if self.folder is None:
            return
        run = SavedRun(self.config, self.dataset.metadata.fingerprint)
        state = state_file(self.folder.state, run, self.state, self.model, self.optimizer)
        model = checkpoint_file(self.folder.checkpoint, self.model, metadata) if metadata else None
        self._writer.save(self.state.step, state, model)

    def resume(self) -> None:
        """Takes up the run in `folder` where its state was last saved.

        Raises:
            CheckpointError: there is no state, it is damaged, or it belongs to another text.
        """
        assert self.folder is not None
        self.state = restore_state(
            self.folder.state, self.model, self.optimizer, self.dataset.metadata.fingerprint
        )
        self.folder.cut_metrics(self.state.step)

    def _result(self) -> TrainResult:
        state = self.state
        return TrainResult(
            step=state.step,
            finished=state.step >= self.config.train.max_iters,
            best_val_loss=state.best_val_loss,
            best_step=state.best_step,
            elapsed=state.elapsed,
            step_seconds=state.step_seconds,
            tokens_per_second=self.tokens_per_second,
            mfu=self.mfu,
        )


def _dropout_seed(seed: int, step: int) -> int:
    """Distinct for every pair, and far from the seed that the weights were drawn with."""
    return (seed << 31) + step + (1 << 62)
