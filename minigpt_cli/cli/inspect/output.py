"""Where a view's result goes: a table on the terminal, JSON on stdout, a picture or a page."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from minigpt_cli.cli.console import out, print_json, print_note
from minigpt_cli.errors import ConfigError
from minigpt_cli.io.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType


@dataclass(frozen=True)
class Output:
    """What the user asked for besides the terminal. Make it first: it checks the files' names.

    Raises:
        ConfigError: a file exists already and `force` is not set, or it is not a known format.
    """

    as_json: bool = False
    plot: Path | None = None
    html: Path | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if self.plot:
            from minigpt_cli.plots.canvas import image_format

            image_format(self.plot)
        for path in (self.plot, self.html):
            if path and os.path.lexists(path) and not self.force:
                raise ConfigError(f"{path}: already exists; add --force to overwrite it")

    def show(
        self,
        value: Any,
        tables: Callable[[], "Iterable[RenderableType]"],
        draw: "Callable[[], Figure] | None" = None,
        page: Callable[[], str] | None = None,
    ) -> None:
        """Writes the files that were asked for, then JSON or the tables.

        Args:
            value: the result, as `json` can write it.
            tables: what the terminal shows; not called with `--json`.
            draw: the picture; called only with `--plot`.
            page: the HTML page; called only with `--html`.

        Raises:
            ConfigError: a file cannot be written.
            typer.BadParameter: a picture is asked for and there is none.
        """
        if self.plot:
            if draw is None:
                raise typer.BadParameter("--plot is not available for this view")
            from minigpt_cli.plots.canvas import image_bytes, image_format

            self._write(self.plot, image_bytes(draw(), image_format(self.plot)))
        if self.html and page:
            self._write(self.html, page().encode())
        if self.as_json:
            print_json(value)
            return
        for table in tables():
            out.print(table)

    def _write(self, path: Path, data: bytes) -> None:
        """Writes a whole file, or none."""
        try:
            with replacing(path) as temporary:
                temporary.write_bytes(data)
        except OSError as error:
            raise ConfigError(
                f"{path}: cannot be written ({error.strerror}); choose another place"
            ) from None
        print_note(f"Wrote {path}")
