"""`minigpt train --watch`: a report that a browser can keep open while training goes on."""

import time
from types import TracebackType
from typing import Self

from minigpt_cli.inspection.run_history import read_run
from minigpt_cli.pages.run_report import Inside, look_inside, report_page
from minigpt_cli.runs.metrics import EvaluationReport, Reporter, StepReport
from minigpt_cli.training.trainer import Trainer

REFRESH_SECONDS = 10
LEAST_PAUSE = 20
"""Times as long as a look inside the model took must pass before the next: 5% of the time, at most.
Until then the page shows the last; all else on it is new at every evaluation."""


class LiveReport:
    """A `Reporter` that passes on what it is told and rewrites the run's report.

    Leaving the context writes the last one, which no longer reads itself again.

    Args:
        reporter: whom to tell everything.
        trainer: whose run it is; only its folder and configuration are looked at.
    """

    def __init__(self, reporter: Reporter, trainer: Trainer) -> None:
        assert trainer.folder is not None
        self._reporter, self._folder = reporter, trainer.folder
        self._max_iters = trainer.config.train.max_iters
        self._inside: Inside | None = None
        self._next_look = 0.0
        self._is_due = False
        self._noted: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None or issubclass(kind, Exception):  # else someone wants to leave at once
            self._next_look = 0.0
            self._write(None)

    def stepped(self, report: StepReport) -> None:
        self._follow()
        self._reporter.stepped(report)

    def evaluated(self, report: EvaluationReport) -> None:
        self._reporter.evaluated(report)
        self._is_due = report.step < self._max_iters  # the end writes its own

    def sampled(self, text: str) -> None:
        self._reporter.sampled(text)
        self._follow()

    def noted(self, message: str) -> None:
        self._reporter.noted(message)

    def _follow(self) -> None:
        """Writes what an evaluation found, once its model and its sample are saved too."""
        if self._is_due:
            self._is_due = False
            self._write(REFRESH_SECONDS)

    def _write(self, refresh_seconds: int | None) -> None:
        """Rewrites the report; what hinders that is said once and does not stop the run."""
        try:
            run = read_run(self._folder.path)
            if time.perf_counter() >= self._next_look:
                started = time.perf_counter()
                self._inside = look_inside(self._folder)
                now = time.perf_counter()
                self._next_look = now + LEAST_PAUSE * (now - started)
            self._folder.write_report(report_page(run, self._inside, refresh_seconds))
        except Exception as error:  # not even a bug in here may end the run
            self._note_once(f"No report: {error or type(error).__name__}")
        else:
            self._note_once(f"A browser can follow this run: {self._folder.report}")

    def _note_once(self, message: str) -> None:
        if message not in self._noted:
            self._noted.add(message)
            self._reporter.noted(message)
