"""`python -m minigpt_cli` and the `minigpt` executable."""

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Runs the command line."""
    # As an exception, a signal cleans up: temporary files, bars, a download's own process.
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _end)
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    try:
        _leave_current_folder_out()
        from minigpt_cli.cli import streams

        streams.set_up()
        from minigpt_cli.io.ranks import end_with_parent, started_together

        if sys.argv[1:2] == ["train"] and started_together():
            # PyTorch describes a lost connection in a hundred lines; one line of ours says it.
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
            end_with_parent()
            if os.environ["RANK"] != "0":
                streams.leave_to_rank_0()
        from minigpt_cli.cli.app import app

        app(prog_name="minigpt")
    except KeyboardInterrupt:  # before a command runs; later ones end in `cli/boundary.py`
        sys.exit(128 + signal.SIGINT)


def _end(number: int, frame: FrameType | None) -> None:
    """Ends the program by an exception, or at once where that could be lost."""
    if _is_importing(frame):
        if sys.stderr is not None and sys.stderr.isatty():
            os.write(2, b"\x1b[?25h")  # shows the cursor, which a bar may have hidden
        os._exit(128 + number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported.

    PyTorch and NumPy catch what is raised while they are imported, and go on without a part.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _leave_current_folder_out() -> None:
    """Keeps a stranger's `torch.py` in the current folder from being imported.

    `python -m` and an empty entry of PYTHONPATH put that folder on the path. Whoever works inside
    the folder of installed packages means it.
    """
    try:
        here = os.path.realpath(os.getcwd())  # noqa: PTH109 - pathlib is not loaded yet
    except OSError:  # deleted
        here = ""
    if os.path.basename(here) not in ("site-packages", "dist-packages"):  # noqa: PTH119
        sys.path[:] = [path for path in sys.path if path and os.path.realpath(path) != here]


if __name__ == "__main__":
    main()
