"""Options that several views of `minigpt inspect` share."""

from pathlib import Path
from typing import Annotated

import typer

from minigpt_cli.cli.options import in_output

Text = Annotated[str, typer.Argument(metavar="TEXT", help="What the model reads.")]
Plot = Annotated[Path | None, in_output("--plot", help="Save a picture, as .png or .svg.")]
Html = Annotated[Path | None, in_output("--html", help="Save an HTML page.")]
Force = Annotated[bool, in_output("--force", help="Overwrite existing files.")]
