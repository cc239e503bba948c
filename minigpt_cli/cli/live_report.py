"""`minigpt train --watch`: a report that a browser can keep open while training goes on."""

import time
from typing import Self

from minigpt_cli.inspection.run_history import read_run
from minigpt_cli.language import _
from minigpt_cli.pages.run_report import Inside, look_inside, report_page
from minigpt_cli.runs.metrics import EvaluationRow, StepRow
from minigpt_cli.training.reporter import Reporter
from minigpt_cli.training.speed import Slowdown
from minigpt_cli.training.trainer import Trainer

REFRESH_SECONDS = 10
LEAST_PAUSE = 20
"""A look inside the model is repeated after this many times its own duration: it takes 5% of the
time, at most. Until then the page shows the last one; the rest is new at every evaluation."""


class LiveReport(Reporter):
    """Passes events on to another reporter, and rewrites the run's report.

    Leaving the context writes the final report, which no longer refreshes itself.
    """

    def __init__(self, reporter: Reporter, trainer: Trainer) -> None:
        self._reporter, self._folder = reporter, trainer.folder
        self._max_iters = trainer.config.train.max_iters
        self._inside: Inside | None = None
        self._next_look = 0.0
        self._is_due = False
        self._noted: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or issubclass(kind, Exception):  # not on a second Ctrl-C
            self._next_look = 0.0
            self._write(None)

    def stepped(self, row: StepRow) -> None:
        self._follow()
        self._reporter.stepped(row)

    def evaluating(self, stage: str, done: int, total: int) -> None:
        self._reporter.evaluating(stage, done, total)

    def evaluated(self, row: EvaluationRow) -> None:
        self._reporter.evaluated(row)
        self._is_due = row.step < self._max_iters  # the end writes its own

    def sampled(self, text: str) -> None:
        self._reporter.sampled(text)
        self._follow()

    def slowed(self, slowdown: Slowdown) -> None:
        self._reporter.slowed(slowdown)

    def noted(self, message: str) -> None:
        self._reporter.noted(message)

    def _follow(self) -> None:
        """Writes the report of an evaluation, once its checkpoint and its sample are saved too."""
        if self._is_due:
            self._is_due = False
            self._write(REFRESH_SECONDS)

    def _write(self, refresh_seconds: int | None) -> None:
        """Rewrites the report; a failure is reported once and does not stop the run."""
        try:
            run = read_run(self._folder.path)
            if time.perf_counter() >= self._next_look:
                started = time.perf_counter()
                self._inside = look_inside(self._folder)
                now = time.perf_counter()
                self._next_look = now + LEAST_PAUSE * (now - started)
            self._folder.write_report(report_page(run, self._inside, refresh_seconds))
        except Exception as error:  # not even a bug here may end the run
            self._note_once(_("No report: {error}").format(error=error or type(error).__name__))
        else:
            self._note_once(
                _("Follow this run in a browser: {report}").format(report=self._folder.report)
            )

    def _note_once(self, message: str) -> None:
        if message not in self._noted:
            self._noted.add(message)
            self._reporter.noted(message)
