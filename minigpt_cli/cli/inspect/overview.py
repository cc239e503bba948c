"""`minigpt inspect [FILES]`: runs by their folders, a checkpoint by its header."""

from pathlib import Path
from typing import Annotated

import typer

from minigpt_cli.cli.inspect.output import Output
from minigpt_cli.cli.loading import checkpoint_path
from minigpt_cli.cli.options import Force, Json, Plot

EXAMPLE = "minigpt inspect runs/small runs/tiny"

Files = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FILES", help="Run folders, or a safetensors file. Default: the newest checkpoint."
    ),
]
Tensors = Annotated[
    bool, typer.Option("--tensors", help="List every tensor instead of the components.")
]


def show(
    files: Files = None,
    tensors: Tensors = False,
    plot: Plot = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show how runs went or what a checkpoint is (the default view)."""
    from minigpt_cli.cli.inspect.checkpoint import show_file
    from minigpt_cli.cli.inspect.history import show_runs
    from minigpt_cli.interop.hf_folder import WEIGHTS, is_hf_folder
    from minigpt_cli.runs.folder import is_folder

    output = Output(as_json, plot, force=force)
    if files and len(files) == 1 and is_hf_folder(files[0]):
        files = [files[0] / WEIGHTS]
    if files and not tensors and any(is_folder(path) for path in files):
        show_runs(files, output)
        return
    if files and len(files) > 1:
        raise typer.BadParameter("several files cannot be combined; pass one, or run folders")
    if plot:
        raise typer.BadParameter("--plot is not available for this view")
    show_file(checkpoint_path(files[0] if files else None), tensors, output)
