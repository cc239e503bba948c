"""`minigpt inspect runs`: the runs there are."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from minigpt_cli.cli.console import print_note
from minigpt_cli.cli.inspect.output import Output
from minigpt_cli.cli.options import Json
from minigpt_cli.cli.render import count, grid, number, raw

if TYPE_CHECKING:
    from minigpt_cli.inspection.run_list import RunSummary

EXAMPLE = "minigpt inspect runs"


def show(as_json: Json = False) -> None:
    """List the runs under runs/, the newest first."""
    from minigpt_cli.inspection.run_list import list_runs
    from minigpt_cli.runs.folder import RUNS

    found = list(list_runs())
    if not found:
        print_note(f"No runs under {RUNS.resolve()}; train one with: minigpt train --preset small")
    Output(as_json).show([_json(run) for run in found], [_table(found)] if found else [])


def _table(runs: "list[RunSummary]") -> Table:
    table = grid("run", "text", "parameters", "best loss", "steps", "", "updated", text_columns=2)
    for run in runs:
        table.add_row(
            raw(str(run.path)),
            raw(", ".join(run.corpus) or "-"),
            number(run.parameters, ","),
            number(run.best_val_loss, ".4f"),
            count(run.last_step) + ("" if run.max_iters is None else f" of {count(run.max_iters)}"),
            "finished" if run.is_finished else "unfinished",
            f"{run.updated.astimezone():%Y-%m-%d}",
        )
    return table


def _json(run: "RunSummary") -> dict[str, Any]:
    return {
        **asdict(run),
        "path": str(run.path),
        "updated": run.updated.isoformat(timespec="seconds"),
        "finished": run.is_finished,
    }
