"""`python -m minigpt_cli` and the `minigpt` executable."""

import signal
import sys
from types import FrameType


def main() -> None:
    """Runs the command line."""
    # As an exception, a signal cleans up: temporary files, bars, a download's own process.
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _exit)
    try:
        from minigpt_cli.cli.app import app

        # A terminal that cannot show a character gets a question mark, never an exception.
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
        app(prog_name="minigpt")
    except KeyboardInterrupt:  # before a command runs; later ones end in `cli/boundary.py`
        sys.exit(128 + signal.SIGINT)


def _exit(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
