"""The one place where errors become messages."""

import errno
import signal
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from minigpt_cli.cli.options import how_to_set
from minigpt_cli.errors import MinigptError

INTERRUPTED = 130
ENDING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
"""The signals that ask a program to end: Ctrl-C, `kill`, and a terminal that was closed."""


class ErrorBoundary(TyperGroup):
    """A group of commands that shows a user's error in one line.

    Anything else is a bug and keeps its traceback. A group inside another one needs this class
    too, so that its errors name the options of the command that was called.
    """

    def invoke(self, ctx: Any) -> Any:
        """Runs a command and turns `MinigptError` into a message and exit code 1."""
        from minigpt_cli.cli.console import print_error, silence

        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # the last place where a broken pipe or a full disk can be handled
            return result
        except MinigptError as error:
            print_error(f"{error}{how_to_set(error.settings, self._options(ctx))}")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:  # the reader closed the pipe, as in `| head -1`
            silence(sys.stdout)
            raise typer.Exit(0) from None
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            silence(sys.stdout)
            print_error("cannot write the output (no space left); free some space")
            raise typer.Exit(1) from None

    def _options(self, ctx: Any) -> set[str]:
        """Every option of the command that ran."""
        command = self.commands.get(ctx.invoked_subcommand, self)
        return {option for parameter in command.params for option in parameter.opts}
