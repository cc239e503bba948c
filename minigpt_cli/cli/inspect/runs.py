"""`minigpt inspect runs`: the runs there are."""

from dataclasses import asdict, dataclass
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size
from rich.table import Table
from rich.text import Text

from minigpt_cli.cli.console import in_unicode, out, print_note
from minigpt_cli.cli.inspect.output import Output
from minigpt_cli.cli.options import Json
from minigpt_cli.cli.render import count, grid, needed_width, number, raw, short_count
from minigpt_cli.language import _

if TYPE_CHECKING:
    from minigpt_cli.inspection.run_list import RunSummary

EXAMPLE = "minigpt inspect runs"


def show(as_json: Json = False) -> None:
    """List the runs under runs/, the newest first: text, size, best loss, finished or not."""
    from minigpt_cli.inspection.run_list import list_runs
    from minigpt_cli.runs.folder import RUNS

    found = list(list_runs())
    if not found:
        print_note(
            _("No runs under {folder}; train one with: minigpt train --preset small").format(
                folder=RUNS.resolve()
            )
        )
    Output(as_json).show([_json(run) for run in found], [_table(found)] if found else [])


def _table(runs: "list[RunSummary]") -> Table:
    """A line per run, with the most that fits beside each other."""
    for shape in _SHAPES:
        table = _table_as(shape, runs)
        if needed_width(table) <= out.width:
            return table
    return _table_as(_SHAPES[0], runs)


@dataclass(frozen=True)
class _Shape:
    """How much is said about each run."""

    text: int | None = None
    """Characters of the texts' names; None for all, 0 for no such column."""
    size: bool = True
    brief: bool = True
    """Whether the day is enough, and `40 of 1,000` says that a run is unfinished."""
    updated: bool = True


_SHAPES = (
    _Shape(brief=False), _Shape(), _Shape(text=20), _Shape(text=10), _Shape(text=0),
    _Shape(text=0, size=False), _Shape(text=0, size=False, updated=False),
)  # fmt: skip


def _table_as(shape: _Shape, runs: "list[RunSummary]") -> Table:
    columns = [_("run"), _("text"), _("size"), _("best loss"), _("steps"), _("updated")]
    shown = [True, shape.text != 0, shape.size, True, True, shape.updated]
    table = grid(*compress(columns, shown), text_columns=1 + shown[1])
    for run in runs:
        texts, time = _texts(run.corpus), run.updated.astimezone()
        cells: list[str | Text] = [
            raw(str(run.path)),
            raw(texts if shape.text is None else _cut(texts, shape.text)),
            "-" if run.parameters is None else short_count(run.parameters),
            number(run.best_val_loss, ".4f"),
            _progress(run, shape.brief),
            f"{time:%Y-%m-%d}" if shape.brief else f"{time:%Y-%m-%d %H:%M}",
        ]
        table.add_row(*compress(cells, shown))
    return table


def _cut(text: str, cells: int) -> str:
    return text if cell_len(text) <= cells else set_cell_size(text, cells - 1).rstrip() + _more()


def _more() -> str:
    return "…" if in_unicode() else "."


def _texts(sources: tuple[str, ...]) -> str:
    """The texts' names, without their folders."""
    names = [Path(source).name or source for source in sources]
    return ", ".join(names[:2]) + (f" +{len(names) - 2}" if names[2:] else "") or "-"


def _progress(run: "RunSummary", brief: bool) -> str:
    steps = count(run.last_step)
    if run.is_finished:
        return steps if brief else _("{last_step}, finished").format(last_step=steps)
    end = (
        "" if run.max_iters is None else _(" of {max_iters}").format(max_iters=count(run.max_iters))
    )
    if brief:
        return steps + end
    return _("{last_step}{end}, unfinished").format(last_step=steps, end=end)


def _json(run: "RunSummary") -> dict[str, Any]:
    return {
        **asdict(run),
        "path": str(run.path),
        "updated": run.updated.isoformat(timespec="seconds"),
        "finished": run.is_finished,
    }
