"""How a run is stopped from outside: by Ctrl-C, `kill` or a terminal that is closed."""

import _thread
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from minigpt_cli.cli.boundary import ENDING
from minigpt_cli.language import _

if TYPE_CHECKING:
    from minigpt_cli.training.trainer import Trainer

_ANSWER_SECONDS = 5.0


@contextmanager
def stopped_by_signals(trainer: "Trainer", answer: Callable[[str], None]) -> Iterator[list[int]]:
    """The first signal that ends a program ends the run after its step, the second immediately.

    Args:
        trainer: saves and stops.
        answer: called at once with what happens now.

    Yields:
        The signals received so far.
    """
    received: list[int] = []
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
        received.append(number)
        trainer.stop_requested = True
        message = _("finishing step {step:,}, saving… (again: quit without saving)").format(
            step=trainer.state.step + 1
        )
        # The main thread may be inside a write to the terminal, which cannot be entered again; and
        # a `Thread` takes a lock to start, which the main thread may hold.
        answered.acquire(blocking=False)
        _thread.start_new_thread(say, (message,))
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        answered.acquire(timeout=_ANSWER_SECONDS)  # on a busy machine the run may end first
