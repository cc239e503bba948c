"""`minigpt inspect batch`: the text that a training step learned from."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from minigpt_cli.cli.console import print_note
from minigpt_cli.cli.inspect.output import Output
from minigpt_cli.cli.loading import RunPath, run_folder
from minigpt_cli.cli.options import DEFAULT_DATA_DIR, DataDir, Json, Verify
from minigpt_cli.cli.render import count, file_progress, key_value_table
from minigpt_cli.cli.startup import import_torch
from minigpt_cli.io.text import printable
from minigpt_cli.language import _

if TYPE_CHECKING:
    from minigpt_cli.inspection.batch import StepBatch

EXAMPLE = "minigpt inspect batch 20 runs/small"


def show(
    step: Annotated[int, typer.Argument(metavar="STEP", min=1, help="The training step, from 1.")],
    run: RunPath = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    verify: Verify = False,
    as_json: Json = False,
) -> None:
    """Show the text that a training step learned from."""
    import_torch()
    from minigpt_cli.data.workspace import Workspace
    from minigpt_cli.inspection.batch import step_batch
    from minigpt_cli.runs.folder import RunFolder
    from minigpt_cli.training.state import saved_run

    saved = saved_run(RunFolder(run_folder(run)).state)
    with file_progress() as progress:
        dataset = Workspace(data_dir, progress, print_note, verify).own_dataset(saved)
    batch = step_batch(saved, dataset, step)
    length = saved.config.model.block_size
    Output(as_json).show(asdict(batch), _tables(batch, length))


def _tables(batch: "StepBatch", length: int) -> Iterator[Table | Rule | Text]:
    table = key_value_table()
    table.add_row(_("step"), count(batch.step) + (_(", skipped") if batch.skipped else ""))
    table.add_row(_("learning rate"), f"{batch.learning_rate:.4g}")
    table.add_row(
        _("windows"),
        _("{number} of {length} tokens, and the one after").format(
            number=len(batch.windows), length=count(length)
        ),
    )
    yield table
    for window in batch.windows:
        yield Rule(
            _("from token {start} of the training text").format(start=count(window.start)),
            align="left",
        )
        yield Text(printable(window.text))
