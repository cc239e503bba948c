"""The training loop. It computes, saves and reports; it never prints."""

import math
import time
from contextlib import AbstractContextManager, nullcontext

from minigpt_cli import __version__
from minigpt_cli.device import machine_info, matmul_flops
from minigpt_cli.errors import CheckpointError, NonFiniteError, PeerLostError, TrainingError
from minigpt_cli.evaluation import Evaluation, evaluate
from minigpt_cli.generation.sampling import Sampling
from minigpt_cli.generation.text import ModelAndTokenizer, generate
from minigpt_cli.io.text import ended
from minigpt_cli.language import _, mark
from minigpt_cli.model.compilation import eagerly
from minigpt_cli.model.gpt import GPT
from minigpt_cli.runs.checkpoint_header import CheckpointMetadata
from minigpt_cli.runs.folder import RunFolder
from minigpt_cli.runs.metrics import EvaluationRow, MachineRow, RewindRow, SampleRow, StepRow
from minigpt_cli.runs.writer import Writer
from minigpt_cli.training import schedule
from minigpt_cli.training.learner import Learner
from minigpt_cli.training.parallel.distributed import Group
from minigpt_cli.training.reporter import Reporter, TrainResult
from minigpt_cli.training.schedule import learning_rate
from minigpt_cli.training.speed import StepTimes
from minigpt_cli.training.stability import (
    MAX_REWINDS,
    LossMonitor,
    NotFinite,
    check_finite,
    divergence_message,
)
from minigpt_cli.training.state import (
    SavedRun,
    TrainState,
    checkpoint_metadata,
    model_file,
    restore,
    state_file,
)


class Trainer:
    """Trains one model and saves it as it goes.

    Of several processes each has a trainer. All take the same steps and come to the same decisions:
    losses, norms and evaluations are sums over all; what a clock, a signal or a disk decides is
    agreed on. Rank 0 alone has a writer that writes.
    """

    def __init__(self, learner: Learner, writer: Writer) -> None:
        self.learner, self.writer = learner, writer
        self.group: Group = learner.group
        self.config, self.dataset = learner.config, learner.dataset
        self.state = TrainState()
        self.stop_requested: int = False
        """Set it, for example from a signal handler to the signal's number, to end the run after
        the current step; then the largest that a process of this run set."""
        self._validation = self.dataset.tokens("val")
        self._monitor = LossMonitor()
        self._step_times = StepTimes()
        self._whole: Evaluation | None = None
        self._session_seconds, self._session_steps = 0.0, 0
        self._peak_flops = math.inf

    @property
    def folder(self) -> RunFolder:
        return self.writer.folder

    @property
    def tokens_per_second(self) -> float:
        """Training speed of this session, without evaluations and saves."""
        tokens = self._session_steps * self.learner.tokens_per_step
        return tokens / max(self._session_seconds, 1e-9)

    @property
    def mfu(self) -> float:
        """Model FLOPs utilization (Chowdhery et al. 2022), against the measured peak."""
        return self.tokens_per_second * self.learner.flops_per_token / self._peak_flops

    def restore(self) -> None:
        """Returns to the run's last saved state.

        Raises:
            CheckpointError: the state is missing, damaged, or belongs to another text.
        """
        self.state = restore(self.folder, self.learner)

    def fit(self, reporter: Reporter) -> TrainResult:
        """Trains to `max_iters`, or until `stop_requested`.

        A step whose loss or gradient is not finite changes nothing: the run returns to its last
        saved state and repeats the steps since, without that batch.

        Raises:
            TrainingError: values became non-finite too often, or once with `on_nonfinite = "stop"`.
            OutOfMemoryError: memory ran out.
            CheckpointError: the state could not be saved at the start, or still not at the end.
        """
        try:
            return self._fit(reporter)
        except PeerLostError as error:
            resume = self.folder.command("train --resume")
            raise PeerLostError(f"{error}; resume with {resume}", error.settings) from None

    def _fit(self, reporter: Reporter) -> TrainResult:
        self._begin(reporter)
        while True:
            try:
                while not self._is_finished():
                    stop, save_is_due = self.group.agreed(self.stop_requested, self._save_is_due())
                    if stop:  # only then: a signal may have come since it was asked
                        self.stop_requested = stop
                        break
                    if save_is_due:
                        self._check_everything()
                        self._save(None)
                    self._advance(reporter)
                self._check_everything()
                break
            except NotFinite as problem:
                self._rewind(problem, reporter)
        lacks_model, is_unsaved = self.group.first(self._lacks)
        if lacks_model or is_unsaved:
            self._save(self._metadata(None) if lacks_model else None)
        self.writer.finish()
        return self._result()

    def _lacks(self) -> tuple[bool, bool]:
        """Whether the run's folder lacks a model, and its last state."""
        return (
            not self.state.best_step or self.writer.lost_checkpoint,
            self.writer.saved_step != self.state.step,
        )

    def _begin(self, reporter: Reporter) -> None:
        learner = self.learner
        self.writer.begin(self.config.to_toml(), reporter.noted)
        self._started = self._saved_at = time.perf_counter()
        self._elapsed_before = self.state.elapsed
        peak = matmul_flops(learner.device, learner.model.compute_dtype)
        self._peak_flops = self.group.sums([peak])[0]
        if self.config.train.compile == "on" and (reason := learner.compile()) is not None:
            note = _("Training without compilation: {reason}")
            reporter.noted(note.format(reason=reason))
        machine = machine_info(learner.device)
        strategy = learner.strategy.name if self.group.size > 1 else None
        self.writer.row(
            MachineRow(
                self.state.step,
                minigpt=__version__,
                processes=self.group.size,
                strategy=strategy,
                **machine,  # type: ignore[arg-type]
            )
        )
        self._save(None)  # from now on there is a state to resume from and to return to
        if self.writer.saved_step is None:
            self.writer.finish()

    def _advance(self, reporter: Reporter) -> None:
        """Takes the next step, and does what is due after it."""
        train, step = self.config.train, self.state.step + 1
        evaluates = schedule.evaluates(train, step)
        logs = evaluates or step % train.log_interval == 0 or step == 1
        checks = logs or step % self.learner.check_interval == 0
        if step in self.state.skipped:
            self.state.step = step
        else:
            seconds = self._timed_step(checks)
            on_cpu = self.learner.check_interval == 1  # elsewhere steps are not timed one by one
            if on_cpu and (slowdown := self._step_times.add(seconds)) is not None:
                reporter.slowed(slowdown)
            if checks:
                row = self._step_row()
                reporter.stepped(row)
                if logs:
                    self.writer.row(row)
        self._update_clock()
        if evaluates:
            self._evaluate_and_save(reporter)
            self._update_clock()

    def _update_clock(self) -> None:
        self.state.elapsed = self._elapsed_before + time.perf_counter() - self._started

    def _timed_step(self, checks: bool) -> float:
        """Takes a step, waiting for the device with `checks`; returns its seconds."""
        started = time.perf_counter()
        loss, grad_norm = self.learner.take_step(self.state.step)
        self.state.step += 1
        self._monitor.add(self.state.step, loss, grad_norm)
        if checks:
            self._check_steps()
        seconds = time.perf_counter() - started
        self.state.step_seconds += seconds
        self._session_seconds += seconds
        self._session_steps += 1
        return seconds

    def _check_steps(self) -> None:
        """Reads the losses and gradient norms since the last check; raises `NotFinite`."""
        for spike in self._monitor.read(self.state.recent_losses):
            self.writer.row(spike)

    def _check_everything(self) -> None:
        """Raises `NotFinite` unless the state may be saved."""
        self._check_steps()
        self.learner.check_weights(self.state.step)

    def _rewind(self, problem: NotFinite, reporter: Reporter) -> None:
        """Returns to the last saved state to skip a step's batch, or raises `TrainingError`."""
        skipped, step = self.state.skipped, problem.step
        wanted = self.config.train.on_nonfinite == "rewind"
        if not wanted or len(skipped) >= MAX_REWINDS or step in skipped:
            raise self._training_error(problem) from None
        step_seconds = self.state.step_seconds
        try:
            self.restore()
        except CheckpointError as error:
            failed = _("; cannot rewind: {error}").format(error=error)
            raise self._training_error(problem, failed) from None
        self.writer.forget_after(self.state.step)
        self.learner.optimizer.zero_grad()
        self._monitor.forget()
        self.state.step_seconds = step_seconds
        self.state.skipped = sorted({*skipped, step})
        self._save(None)  # a crash from now on must not meet the same batch again
        self.writer.row(RewindRow(self.state.step, step, str(problem)))
        note = _(
            "{problem}: rewound to step {step:,}, skipping that batch (rewind {number} of {most})"
        )
        said, step, number = str(problem).capitalize(), self.state.step, len(self.state.skipped)
        reporter.noted(note.format(problem=said, step=step, number=number, most=MAX_REWINDS))

    def _training_error(self, problem: NotFinite, more: str = "") -> TrainingError:
        message = divergence_message(
            problem,
            self._learning_rate(problem.step),
            self._monitor.recent_norms,
            rewinds=len(self.state.skipped),
            look=self.folder.command(f"inspect batch {problem.step}"),
        )
        settings = ("optimizer.learning_rate", "optimizer.grad_clip=1.0")
        return TrainingError(f"{message}{more}", settings)

    def _learning_rate(self, step: int) -> float:
        """The rate a step was taken with; the first step is 1."""
        return learning_rate(self.config.optimizer, step, self.config.train.max_iters)

    def _step_row(self) -> StepRow:
        return StepRow(
            step=self.state.step,
            loss=self.state.recent_losses[-1],
            learning_rate=self._learning_rate(self.state.step),
            tokens_per_second=self.tokens_per_second,
            grad_norm=self._monitor.recent_norms[-1],
        )

    def _evaluate_and_save(self, reporter: Reporter) -> None:
        self._check_everything()
        # Every evaluation reads the same tokens, and only their losses are compared: with each
        # other, here and wherever a best one is looked for. What the last one reads beyond them
        # is shown, and has no part in choosing the model that is saved (see `EvaluationRow`).
        result = self._evaluate(self.config.train.eval_tokens, reporter)
        self._whole = whole = self._evaluate_whole(result, reporter)
        shown = whole or result
        best = self.state.best_val_loss
        if is_best := best is None or result.loss < best:
            self.state.best_val_loss, self.state.best_step = result.loss, self.state.step
            self.state.evaluations_since_best = 0
        else:
            self.state.evaluations_since_best += 1
        row = EvaluationRow(
            step=self.state.step,
            val_loss=shown.loss,
            train_loss=self.state.recent_loss,
            bits_per_byte=shown.bits_per_byte,
            elapsed=self.state.elapsed,
            is_best=is_best,
            tokens_per_second=self.tokens_per_second,
            epochs=self._epochs,
            val_tokens=shown.tokens,
            compared_val_loss=result.loss if whole else None,
            mfu=self.mfu,
        )
        self.writer.row(row)
        text = self._sampled() if self.config.train.sample_tokens else None
        if text is not None:
            self.writer.row(SampleRow(self.state.step, text))
        self._save(self._metadata(shown) if is_best else None)
        reporter.evaluated(row)  # after saving, so that a failing reporter loses nothing
        if text is not None:
            reporter.sampled(text)

    @property
    def _epochs(self) -> float:
        read = self.state.step * self.learner.tokens_per_step
        return read / self.dataset.metadata.train_tokens

    def _evaluate(self, most: int, reporter: Reporter) -> Evaluation:
        try:
            with (
                self._eagerly(),
                self.group.watched(),
                self.learner.evaluated_model() as model,
            ):
                result = evaluate(
                    model,
                    self.dataset.tokenizer,
                    self._validation,
                    most,
                    reporter.evaluating,
                    self.learner.strategy if self.group.size > 1 else None,
                )
        except NonFiniteError:
            raise NotFinite(mark("validation loss"), self.state.step, math.nan) from None
        check_finite(self.state.step, validation_loss=result.loss)
        return result

    def _evaluate_whole(self, part: Evaluation, reporter: Reporter) -> Evaluation | None:
        """At the end of the run, the score on all of the validation text.

        Of a text that is long for the run, only as much as costs little: predicting takes a third
        of the time of training.
        """
        train = self.config.train
        most = train.max_iters * self.learner.tokens_per_step // 10
        if self.state.step < train.max_iters or part.tokens >= min(most, len(self._validation) - 1):
            return None
        return self._evaluate(most, reporter)

    def _sampled(self) -> str:
        """Generates a text from an empty prompt, with its own random numbers, on rank 0."""
        with self.learner.evaluated_model() as trained:
            model = self.learner.strategy.whole_model(trained)
            text = self.group.first(lambda: None if model is None else self._sample(model))
        if text is None:
            raise NotFinite(mark("sample's logits"), self.state.step, math.nan)
        return text

    def _sample(self, model: GPT) -> str | None:
        """A text, or None if the model computes NaN or infinity."""
        sampling = Sampling(seed=self.state.step)
        try:
            with self._eagerly():
                writer = ModelAndTokenizer(model, self.dataset.tokenizer)
                pieces = generate(writer, "", self.config.train.sample_tokens, sampling)
                return ended("".join(pieces))
        except NonFiniteError:
            return None

    def _eagerly(self) -> AbstractContextManager[None]:
        return eagerly() if self.config.train.compile == "on" else nullcontext()

    def _metadata(self, result: Evaluation | None) -> CheckpointMetadata:
        return checkpoint_metadata(self.learner, self.state, result)

    def _save_is_due(self) -> bool:
        seconds = self.config.train.save_every_seconds
        return 0 < seconds <= time.perf_counter() - self._saved_at

    def _save(self, metadata: CheckpointMetadata | None) -> None:
        """Saves the state and, given metadata, the model as the best so far."""
        self._saved_at = time.perf_counter()
        model, folder = self.learner.model, self.folder
        run = SavedRun(self.config, self.dataset.metadata.fingerprint)
        gathered = self.learner.strategy.gathered
        state = gathered(state_file(folder.state, run, self.state, model, self.learner.optimizer))
        checkpoint = (
            None if metadata is None else model_file(folder.checkpoint, self.learner, metadata)
        )
        self.writer.save(self.state.step, state, checkpoint)

    def _is_finished(self) -> bool:
        return self.state.step >= self.config.train.max_iters or self.stopped_early

    @property
    def stopped_early(self) -> bool:
        """Whether the validation loss has not improved for `train.patience` evaluations."""
        return 0 < self.config.train.patience <= self.state.evaluations_since_best

    def _result(self) -> TrainResult:
        state = self.state
        is_last = state.best_step == state.step
        return TrainResult(
            run=self.folder.path,
            step=state.step,
            finished=self._is_finished(),
            stopped_early=self.stopped_early,
            best_val_loss=self._whole.loss if self._whole and is_last else state.best_val_loss,
            best_step=state.best_step,
            elapsed=state.elapsed,
            step_seconds=state.step_seconds,
            tokens_per_second=self.tokens_per_second,
            mfu=self.mfu,
        )
