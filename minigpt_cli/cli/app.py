"""The `minigpt` program: its six commands."""

from typing import Annotated

import typer

from minigpt_cli.cli import eval as eval_command
from minigpt_cli.cli import generate, tokenize, train
from minigpt_cli.cli.boundary import ErrorBoundary
from minigpt_cli.cli.export import command as export
from minigpt_cli.cli.inspect import group as inspect
from minigpt_cli.language import _

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


@app.callback(epilog=_("Start with:  {command}").format(command="minigpt train --preset small"))
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Train a small GPT from scratch on your own text, generate with it, and look inside it."""


MAKE, USE = _("Make a model"), _("Use a model")
app.command("tokenize", rich_help_panel=MAKE, epilog=tokenize.EXAMPLE)(tokenize.tokenize)
app.command("train", rich_help_panel=MAKE, epilog=train.EXAMPLE)(train.train)
app.command("generate", rich_help_panel=USE, epilog=generate.EXAMPLE)(generate.generate)
app.command("eval", rich_help_panel=USE, epilog=eval_command.EXAMPLE)(eval_command.evaluate)
app.add_typer(inspect.app, name="inspect", rich_help_panel=USE, epilog=inspect.EXAMPLE)
app.command("export", rich_help_panel=USE, epilog=export.EXAMPLE)(export.export)
