"""A training run in the terminal: what is shown, and the signals that end it."""

import _thread
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

from minigpt_cli.cli.boundary import ENDING
from minigpt_cli.config.choices import TrackerName
from minigpt_cli.language import _

if TYPE_CHECKING:
    from minigpt_cli.training.reporter import Reporter, TrainResult
    from minigpt_cli.training.trainer import Trainer

_ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class Following:
    """Where a run can be followed, besides the terminal."""

    report: bool
    trackers: tuple[TrackerName, ...]

    def check(self) -> None:
        """Raises unless every tracker can be used, before the work begins."""
        from minigpt_cli.runs.trackers import check_installed

        for name in self.trackers:
            check_installed(name)

    def fit(self, trainer: "Trainer", reporter: "Reporter") -> "TrainResult":
        """Trains, and keeps the report and the trackers current."""
        from minigpt_cli.cli.live_report import LiveReport
        from minigpt_cli.cli.tracking import Tracking

        with ExitStack() as held:
            if self.trackers:
                reporter = held.enter_context(Tracking(reporter, trainer, self.trackers))
            if self.report:
                reporter = held.enter_context(LiveReport(reporter, trainer))
            return trainer.fit(reporter)


def fit(trainer: "Trainer", data_dir: Path, following: Following, as_json: bool) -> None:
    """Trains, shows how it goes and what came of it; only rank 0 says anything.

    Raises:
        Exit: a signal ended the run.
        MinigptError: training failed.
    """
    from minigpt_cli.cli.console import out, print_error, print_json, print_note
    from minigpt_cli.cli.train_progress import (
        TrainProgress,
        next_commands,
        quit_message,
        result_table,
        run_lines,
    )
    from minigpt_cli.errors import PeerLostError
    from minigpt_cli.training.reporter import Reporter

    if not trainer.group.is_first:
        with _stopped_by_signals(trainer, lambda _: None):
            trainer.fit(Reporter())
        if trainer.stop_requested:
            raise typer.Exit(128 + trainer.stop_requested)
        return
    try:
        with (
            TrainProgress(trainer.config, trainer.state.step) as progress,
            _stopped_by_signals(trainer, progress.stopping),
        ):
            progress.print_lines(run_lines(trainer))
            result = following.fit(trainer, progress)
    except KeyboardInterrupt:  # the second Ctrl-C
        print_note(quit_message(trainer))
        raise
    except PeerLostError as error:
        if not trainer.stop_requested:
            raise
        print_error(str(error))  # the signal reached the others too, and ended one of them
        raise typer.Exit(128 + trainer.stop_requested) from None
    received = trainer.stop_requested
    if received and received not in (signal.SIGINT, signal.SIGTERM):
        raise typer.Exit(128 + received)  # the terminal is gone, and nobody reads on
    if as_json:
        print_json({**asdict(result), "run": str(result.run)})
    else:
        out.print(result_table(trainer.folder, result))
    next_commands(trainer, data_dir, result)
    if not result.finished:
        raise typer.Exit(128 + received)


@contextmanager
def _stopped_by_signals(trainer: "Trainer", answer: Callable[[str], None]) -> Iterator[None]:
    """The first signal that ends a program ends the run after its step, the second immediately.

    Args:
        trainer: saves and stops.
        answer: called at once with what happens now.
    """
    answered = _thread.allocate_lock()
    before = {int(number): signal.getsignal(number) for number in ENDING}
    # A shell has its background jobs ignore signals: they stay ignored.
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}

    def say(message: str) -> None:
        try:
            answer(message)
        finally:
            answered.release()

    def stop(number: int, _frame: FrameType | None) -> None:
        trainer.stop_requested = number
        # No number: a signal may come between two steps, and then none is begun.
        message = _("finishing this step, saving… (again: quit without saving)")
        # The main thread may be inside a write to the terminal, which cannot be entered again; and
        # a `Thread` takes a lock to start, which the main thread may hold.
        answered.acquire(blocking=False)
        _thread.start_new_thread(say, (message,))
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        answered.acquire(timeout=_ANSWER_SECONDS)  # on a busy machine the run may end first
