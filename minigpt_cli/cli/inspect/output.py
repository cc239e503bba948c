"""Where facts go: a table on the terminal, JSON on stdout, a picture or a page in a file."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from minigpt_cli.cli.console import out, print_json, print_note
from minigpt_cli.errors import ConfigError
from minigpt_cli.io.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType


@dataclass(frozen=True)
class Output:
    """What the user asked for beside the terminal.

    Raises:
        ConfigError: a file exists already and `force` is not set, or its name says no format.
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
                raise ConfigError(f"{path}: exists already and is not overwritten; add --force")

    def refuse(self, option: Literal["plot", "html"]) -> None:
        """Refuses what a view does not make; one that works for long asks before.

        Raises:
            typer.BadParameter: it was asked for.
        """
        if getattr(self, option):
            raise typer.BadParameter(f"--{option}: this view has none; leave it out")

    def show(
        self,
        facts: Any,
        tables: Callable[[], "Iterable[RenderableType]"],
        draw: "Callable[[], Figure] | None" = None,
        page: Callable[[], str] | None = None,
    ) -> None:
        """Shows facts in every way that was asked for, and on the terminal unless as JSON.

        Args:
            facts: what `json` can write.
            tables: what the terminal shows; called only when it does.
            draw: the picture; called only with `--plot`.
            page: the HTML page; called only with `--html`.

        Raises:
            ConfigError: a file cannot be written.
        """
        if draw is None:
            self.refuse("plot")
        if page is None:
            self.refuse("html")
        if self.plot and draw:
            from minigpt_cli.plots.canvas import image_bytes, image_format

            self._write(self.plot, image_bytes(draw(), image_format(self.plot)))
        if self.html and page:
            self._write(self.html, page().encode())
        if self.as_json:
            print_json(facts)
            return
        for table in tables():
            out.print(table)

    def _write(self, path: Path, data: bytes) -> None:
        """Writes a file so that it is there whole or not at all."""
        try:
            with replacing(path) as temporary:
                temporary.write_bytes(data)
        except OSError as error:
            raise ConfigError(
                f"{path}: cannot be written ({error.strerror}); choose another place"
            ) from None
        print_note(f"Wrote {path}")
