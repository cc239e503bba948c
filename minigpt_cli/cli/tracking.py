"""`minigpt train --log`: a run's curves in TensorBoard or Weights & Biases."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from minigpt_cli.config.choices import TrackerName
from minigpt_cli.language import _
from minigpt_cli.runs.metrics import EvaluationRow, StepRow
from minigpt_cli.runs.trackers import Tracker, measurements, open_tracker
from minigpt_cli.training.reporter import Reporter
from minigpt_cli.training.speed import Slowdown
from minigpt_cli.training.trainer import Trainer


class Tracking(Reporter):
    """Passes events on to another reporter, and to trackers.

    A tracker that fails is reported once and left out from then on; the run goes on.

    Args:
        reporter: receives every event.
        trainer: provides the run folder and the settings.
        names: the trackers.
    """

    def __init__(
        self, reporter: Reporter, trainer: Trainer, names: tuple[TrackerName, ...]
    ) -> None:
        self._reporter, self._trainer = reporter, trainer
        self._log_interval = trainer.config.train.log_interval
        self._step = trainer.state.step
        self._trackers: dict[TrackerName, Tracker] = {}
        self._names = names

    def __enter__(self) -> Self:
        for name in self._names:
            self._attempt(name, lambda name=name: self._open(name))  # type: ignore[misc]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name, tracker in [*self._trackers.items()]:
            self._attempt(name, tracker.close)

    def stepped(self, row: StepRow) -> None:
        self._reporter.stepped(row)
        self._step = row.step
        if row.step == 1 or row.step % self._log_interval == 0:
            self._each(lambda tracker: tracker.log(row.step, measurements(row)))

    def evaluated(self, row: EvaluationRow) -> None:
        self._reporter.evaluated(row)
        self._step = row.step
        self._each(lambda tracker: tracker.log(row.step, measurements(row)))

    def sampled(self, text: str) -> None:
        self._reporter.sampled(text)
        # Four spaces: a Markdown block that nothing in the text can end.
        block = "\n".join(f"    {line}" for line in text.splitlines())
        self._each(lambda tracker: tracker.text(self._step, "sample", block))

    def noted(self, message: str) -> None:
        self._reporter.noted(message)

    def evaluating(self, stage: str, done: int, total: int) -> None:
        self._reporter.evaluating(stage, done, total)

    def slowed(self, slowdown: Slowdown) -> None:
        self._reporter.slowed(slowdown)

    def _open(self, name: TrackerName) -> None:
        trainer = self._trainer
        self._trackers[name] = open_tracker(
            name, trainer.folder.path, trainer.config, trainer.state.step
        )

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in [*self._trackers.items()]:
            self._attempt(name, lambda tracker=tracker: act(tracker))  # type: ignore[misc]

    def _attempt(self, name: TrackerName, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # whatever a tracker raises, the run goes on
            self._trackers.pop(name, None)
            reason = " ".join(str(error).split()) or type(error).__name__
            self._reporter.noted(
                _("{name}: no longer tracked ({reason:.200})").format(name=name, reason=reason)
            )
