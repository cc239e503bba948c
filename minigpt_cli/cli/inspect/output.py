"""Where a view's result goes: a table on the terminal, JSON on stdout, a picture or a page."""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigpt_cli.cli.console import out, print_json, print_note
from minigpt_cli.errors import ConfigError, reraise_as
from minigpt_cli.io.atomic import replacing
from minigpt_cli.language import _

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
                raise ConfigError(
                    _("{path}: already exists; add --force to overwrite it").format(path=path)
                )

    def show(self, value: Any, tables: "Iterable[RenderableType]") -> None:
        """Prints the result: as JSON, or as tables, which a generator makes only then."""
        if self.as_json:
            print_json(value)
            return
        from rich.table import Table

        from minigpt_cli.cli.render import fit

        for table in tables:
            out.print(fit(table, out.width) if isinstance(table, Table) else table)


def save_plot(figure: "Figure", path: Path) -> None:
    """Saves a picture in the format that the file's name asks for."""
    from minigpt_cli.plots.canvas import image_bytes, image_format

    save(image_bytes(figure, image_format(path)), path)


def save(data: bytes, path: Path) -> None:
    """Writes a whole file, or none.

    Raises:
        ConfigError: the file cannot be written.
    """
    hint = _("choose another place")
    with reraise_as(ConfigError, path, "written", hint=hint), replacing(path) as temporary:
        temporary.write_bytes(data)
    print_note(_("Wrote {path}").format(path=path))
    if "minigpt_cli.plots.canvas" in sys.modules:  # something was drawn
        from minigpt_cli.plots.canvas import missing_font_note

        if note := missing_font_note():
            print_note(note)
