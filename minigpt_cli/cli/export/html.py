"""`minigpt export --to html`: the model as one page."""

import typer

from minigpt_cli.cli.console import print_note
from minigpt_cli.cli.export.request import Request
from minigpt_cli.errors import ConfigError
from minigpt_cli.io.atomic import replacing


def export_html(request: Request) -> None:
    """Writes the page.

    Raises:
        ConfigError: the file exists or cannot be written, or the model is too large for a page.
        CheckpointError: there is no model, or it is damaged or not one of ours.
        typer.BadParameter: the options do not fit a page.
    """
    if request.target.suffix.lower() not in (".html", ".htm"):
        raise typer.BadParameter(f"{request.target}: must end in .html")
    request.check_dtype("bf16", "int8")
    request.check_target()
    path, checkpoint = request.load()
    from minigpt_cli.pages.playground import playground_page

    dtype = request.dtype if request.dtype in ("bf16", "int8") else None
    page = playground_page(
        checkpoint, path, dtype, request.title, request.prompt or "", request.inspect
    ).encode()
    try:
        with replacing(request.target) as temporary:
            temporary.write_bytes(page)
    except OSError as error:
        raise ConfigError(
            f"{request.target}: cannot be written ({error.strerror}); choose another place"
        ) from None
    print_note(f"Wrote {request.target} ({len(page) / 1e6:.1f} MB); open it in a browser")
