"""`minigpt export --to html`: the model as one page."""

from typing import TYPE_CHECKING

import typer

from minigpt_cli.cli.console import print_note
from minigpt_cli.cli.export.request import Request
from minigpt_cli.errors import ConfigError, reraise_as
from minigpt_cli.io.atomic import replacing
from minigpt_cli.language import _

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
        raise typer.BadParameter(_("{target}: must end in .html").format(target=request.target))
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
    hint = _("choose another place")
    with (
        reraise_as(ConfigError, request.target, "written", hint=hint),
        replacing(request.target) as temporary,
    ):
        temporary.write_bytes(page)
    print_note(
        _("Wrote {target} ({size:.1f} MB); open it in a browser").format(
            target=request.target, size=len(page) / 1e6
        )
    )


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
        _(
            "{path}: the page would be {size:,.0f} MB in {dtype} and the limit is "
            "{limit:,.0f} MB; {advice}"
        ).format(
            path=loaded.path,
            size=size / 1e6,
            dtype=dtype,
            limit=LARGEST_PAGE / 1e6,
            advice=_("try --dtype int8") if fits else _("train a smaller model"),
        )
    )
