"""`minigpt inspect`: looks inside a checkpoint or a run; each view is a module of `views`."""

from pathlib import Path
from typing import Annotated

import typer

from minigpt_cli.cli.options import OUTPUT, Json

EXAMPLE = "Examples:  minigpt inspect checkpoint.safetensors    minigpt inspect runs/small --json"

VIEW, DETAIL = "What to look at", "Details"


def inspect(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="A safetensors file or a run's folder. Default: the newest run."),
    ] = None,
    tensors: Annotated[
        bool,
        typer.Option(
            "--tensors",
            help="List every tensor, not only the components.",
            rich_help_panel=DETAIL,
        ),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw it: a .png or .svg file.", rich_help_panel=OUTPUT),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write it as a page for a browser.", rich_help_panel=OUTPUT),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Overwrite what exists.", rich_help_panel=OUTPUT),
    ] = False,
    as_json: Json = False,
) -> None:
    """Look inside a checkpoint: what it is, what it learned from, where its parameters are.

    Any safetensors file will do; one from elsewhere gets the list of its tensors. A run's folder
    shows how training went; several compare.
    """
    from minigpt_cli.cli.views.checkpoint import show_file
    from minigpt_cli.cli.views.output import Output
    from minigpt_cli.run_folder import is_folder

    output = Output(as_json, plot, html, force)
    if files and not tensors and any(is_folder(path) for path in files):
        from minigpt_cli.cli.views.runs import show_runs

        show_runs(files, output)
    else:
        show_file(_one(files), tensors, output)


def _one(files: list[Path] | None) -> Path:
    """The checkpoint that a view of one model is for; says so when it was chosen for the user."""
    from minigpt_cli.cli.console import print_note
    from minigpt_cli.run_folder import find_checkpoint

    if files and len(files) > 1:
        raise typer.BadParameter("this view is of one checkpoint; name one")
    path, chosen = find_checkpoint(files[0] if files else None)
    if chosen:
        print_note(f"Using {path}")
    return path
