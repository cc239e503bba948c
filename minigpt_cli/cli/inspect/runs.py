"""`minigpt inspect runs`: the runs there are."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from minigpt_cli.cli.console import print_note
from minigpt_cli.cli.inspect.output import Output
from minigpt_cli.cli.options import Json
from minigpt_cli.cli.render import count, grid, number, raw, short_count
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
    table = grid(
        _("run"), _("text"), _("size"), _("best loss"), _("steps"), _("updated"), text_columns=2
    )
    for run in runs:
        table.add_row(
            raw(str(run.path)),
            raw(_texts(run.corpus)),
            "-" if run.parameters is None else short_count(run.parameters),
            number(run.best_val_loss, ".4f"),
            _progress(run),
            f"{run.updated.astimezone():%Y-%m-%d %H:%M}",
        )
    return table


def _texts(sources: tuple[str, ...]) -> str:
    """The texts' names, without their folders."""
    names = [Path(source).name or source for source in sources]
    return ", ".join(names[:2]) + (f" +{len(names) - 2}" if names[2:] else "") or "-"


def _progress(run: "RunSummary") -> str:
    if run.is_finished:
        return _("{last_step}, finished").format(last_step=count(run.last_step))
    end = (
        "" if run.max_iters is None else _(" of {max_iters}").format(max_iters=count(run.max_iters))
    )
    return _("{last_step}{end}, unfinished").format(last_step=count(run.last_step), end=end)


def _json(run: "RunSummary") -> dict[str, Any]:
    return {
        **asdict(run),
        "path": str(run.path),
        "updated": run.updated.isoformat(timespec="seconds"),
        "finished": run.is_finished,
    }
