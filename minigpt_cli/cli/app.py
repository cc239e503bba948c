"""The `minigpt` program: its six commands, and the one place where errors become messages."""

import errno
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from minigpt_cli.cli import eval as eval_command
from minigpt_cli.cli import generate, tokenize, train
from minigpt_cli.cli.export import command as export
from minigpt_cli.cli.inspect import command as inspect
from minigpt_cli.errors import MinigptError

INTERRUPTED = 130


class ErrorBoundary(TyperGroup):
    """Shows a user's mistake in one line; everything else is a bug and keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Runs a command and turns `MinigptError` into a message and exit code 1."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # here a broken pipe or a full disk can still be answered
            return result
        except MinigptError as error:
            from minigpt_cli.cli.console import print_error

            print_error(str(error))
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:  # whoever read the output has had enough, as in `| head -1`
            from minigpt_cli.cli.console import silence

            silence(sys.stdout)
            raise typer.Exit(0) from None
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            from minigpt_cli.cli.console import print_error, silence

            silence(sys.stdout)
            print_error("the output cannot be written (no space left); free some space")
            raise typer.Exit(1) from None


app = typer.Typer(
    name="minigpt",
    cls=ErrorBoundary,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from minigpt_cli import __version__

        typer.echo(f"minigpt {__version__}")
        raise typer.Exit


@app.callback(epilog="Start with:  minigpt train --preset small")
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Train a small GPT on your own text, from nothing, write with it, and look inside it."""


MAKE, USE = "Make a model", "Use a model"
app.command("tokenize", rich_help_panel=MAKE, epilog=tokenize.EXAMPLE)(tokenize.tokenize)
app.command("train", rich_help_panel=MAKE, epilog=train.EXAMPLE)(train.train)
app.command("generate", rich_help_panel=USE, epilog=generate.EXAMPLE)(generate.generate)
app.command("eval", rich_help_panel=USE, epilog=eval_command.EXAMPLE)(eval_command.evaluate)
app.command("inspect", cls=inspect.InspectCommand, rich_help_panel=USE, epilog=inspect.EXAMPLE)(
    inspect.inspect
)
app.command("export", rich_help_panel=USE, epilog=export.EXAMPLE)(export.export)
