"""`minigpt inspect`: looks inside a checkpoint or a run; each view is a module of `views`."""

from pathlib import Path
from typing import Annotated

import typer

from minigpt_cli.cli.options import (
    DEFAULT_DATA_DIR,
    OUTPUT,
    DataDir,
    Device,
    Encoding,
    Json,
)

EXAMPLE = "Examples:  minigpt inspect checkpoint.safetensors    minigpt inspect runs/small --json"

VIEW, DETAIL = "What to look at", "Details"

SurprisalFile = Annotated[
    str | None,
    typer.Option(
        "--surprisal",
        metavar="FILE",
        help="Which passages of a text it finds hard.",
        rich_help_panel=VIEW,
    ),
]
Memorized = Annotated[
    bool,
    typer.Option(
        "--memorized",
        help="What it writes that stands verbatim in its training text.",
        rich_help_panel=VIEW,
    ),
]
Samples = Annotated[
    int,
    typer.Option("--samples", help="Texts that --memorized writes.", rich_help_panel=DETAIL),
]
Seed = Annotated[
    int,
    typer.Option("--seed", help="Of the texts that --memorized writes.", rich_help_panel=DETAIL),
]


def inspect(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="A safetensors file or a run's folder. Default: the newest run."),
    ] = None,
    surprisal: SurprisalFile = None,
    memorized: Memorized = False,
    tensors: Annotated[
        bool,
        typer.Option(
            "--tensors",
            help="List every tensor, not only the components.",
            rich_help_panel=DETAIL,
        ),
    ] = False,
    samples: Samples = 10,
    seed: Seed = 0,
    encoding: Encoding = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    device: Device = "auto",
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

    Any safetensors file will do; one from elsewhere gets the list of its tensors.
    """
    from minigpt_cli.cli.views.output import Output

    _one_view({"--surprisal": surprisal is not None, "--memorized": memorized})
    output = Output(as_json, plot, html, force)
    if surprisal is not None:
        from minigpt_cli.cli.views.surprisal import show_surprisal

        return show_surprisal(_one(files), surprisal, encoding, data_dir, device, output)
    if memorized:
        from minigpt_cli.cli.views.memorized import show_memorized

        return show_memorized(_one(files), samples, seed, data_dir, device, output)
    from minigpt_cli.cli.views.checkpoint import show_file

    return show_file(_one(files), tensors, output)


def _one_view(asked: dict[str, bool]) -> None:
    if len(views := [option for option, wanted in asked.items() if wanted]) > 1:
        raise typer.BadParameter(f"{' and '.join(views)} are two views; ask for one at a time")


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
