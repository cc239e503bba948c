"""Options that several views of `minigpt inspect` share."""

from pathlib import Path
from typing import Annotated

import typer

from minigpt_cli.cli.options import OUTPUT, decoded

Text = Annotated[
    str, typer.Argument(metavar="TEXT", help="What the model reads.", callback=decoded)
]
Plot = Annotated[
    Path | None,
    typer.Option("--plot", help="Save a picture, as .png or .svg.", rich_help_panel=OUTPUT),
]
Html = Annotated[
    Path | None, typer.Option("--html", help="Save an HTML page.", rich_help_panel=OUTPUT)
]
Force = Annotated[
    bool, typer.Option("--force", help="Overwrite existing files.", rich_help_panel=OUTPUT)
]
