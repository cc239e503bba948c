"""`python -m minigpt_cli` and the `minigpt` executable."""

import sys


def main() -> None:
    """Runs the command line."""
    from minigpt_cli.cli.app import app

    # A terminal that cannot show a character gets a question mark, never an exception.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    app(prog_name="minigpt")


if __name__ == "__main__":
    main()
