"""`minigpt inspect RUN --batch STEP`: the text that a step learned from."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from minigpt_cli.cli.inspect.output import Output
from minigpt_cli.cli.render import count, file_progress, key_value_table, raw
from minigpt_cli.data.workspace import Workspace
from minigpt_cli.inspection.batch import StepBatch, step_batch
from minigpt_cli.runs.folder import RunFolder
from minigpt_cli.training.state import saved_run


def show_batch(run: Path, step: int, data_dir: Path, output: Output) -> None:
    """Shows the windows of one step of a run.

    Args:
        run: its folder.
        step: 1 for the first.
        data_dir: where prepared texts are kept.
        output: where to.
    """
    saved = saved_run(RunFolder(run).state)
    with file_progress() as progress:
        dataset = Workspace(data_dir, progress).own_dataset(saved)
    batch = step_batch(saved, dataset, step)
    output.show(asdict(batch), lambda: _tables(batch, saved.config.model.block_size))


def _tables(batch: StepBatch, length: int) -> Iterator[Table | Rule | Text]:
    table = key_value_table()
    table.add_row("step", count(batch.step) + (", left out" if batch.skipped else ""))
    table.add_row("learning rate", f"{batch.learning_rate:.4g}")
    table.add_row("windows", f"{len(batch.windows)} of {count(length)} tokens and the one after")
    yield table
    for window in batch.windows:
        yield Rule(f"from token {count(window.start)} of the training text", align="left")
        yield raw(window.text)
