"""`minigpt export --to html`: the model as one page."""

from typing import TYPE_CHECKING

import typer

from minigpt_cli.cli.console import print_note
from minigpt_cli.cli.export.request import Request
from minigpt_cli.errors import ConfigError, reraise_as
from minigpt_cli.io.atomic import replacing

if TYPE_CHECKING:
    from minigpt_cli.cli.loading import Loaded
    from minigpt_cli.pages.playground import PageDtype


def export_html(request: Request) -> None:
    """Writes the page.

    Raises:
        ConfigError: the file exists or cannot be written, or the model is too large for a page.
        CheckpointError: the model is missing, damaged, or not a minigpt checkpoint.
        typer.BadParameter: the options do not fit a page.
    """
    if request.target.suffix.lower() not in (".html", ".htm"):
        raise typer.BadParameter(f"{request.target}: must end in .html")
    request.check_dtype("bf16", "int8")
    request.check_target()
    loaded = request.load()
    from minigpt_cli.pages.playground import playground_page, usual_dtype

    asked = request.dtype if request.dtype in ("bf16", "int8") else None
    dtype = asked or usual_dtype(loaded.checkpoint)
    check_size(loaded, dtype)
    page = playground_page(
        loaded.checkpoint, dtype, request.title, request.prompt or "", request.inspect
    ).encode()
    hint = "choose another place"
    with (
        reraise_as(ConfigError, request.target, "written", hint=hint),
        replacing(request.target) as temporary,
    ):
        temporary.write_bytes(page)
    print_note(f"Wrote {request.target} ({len(page) / 1e6:.1f} MB); open it in a browser")


def check_size(loaded: "Loaded", dtype: "PageDtype") -> None:
    """Raises unless a phone can open the page.

    Raises:
        ConfigError: it cannot.
    """
    from minigpt_cli.pages.playground import LARGEST_PAGE, page_bytes

    size = page_bytes(loaded.checkpoint, dtype)
    if size <= LARGEST_PAGE:
        return
    fits = dtype != "int8" and page_bytes(loaded.checkpoint, "int8") <= LARGEST_PAGE
    raise ConfigError(
        f"{loaded.path}: the page would be {size / 1e6:,.0f} MB in {dtype} and the limit is "
        f"{LARGEST_PAGE / 1e6:,.0f} MB; {'try --dtype int8' if fits else 'train a smaller model'}"
    )
