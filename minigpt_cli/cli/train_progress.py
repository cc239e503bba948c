"""How training looks while it runs, and what is said at its end."""

import os
import shlex
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from minigpt_cli.cli.console import err, print_note
from minigpt_cli.cli.options import DEFAULT_DATA_DIR
from minigpt_cli.cli.render import count, duration, key_value_table, model_size, raw, size
from minigpt_cli.config.schema import RunConfig
from minigpt_cli.inspection.run_history import read_run
from minigpt_cli.runs.folder import RunFolder
from minigpt_cli.runs.metrics import EvaluationReport, StepReport, TrainResult
from minigpt_cli.training.setup import Estimate
from minigpt_cli.training.trainer import Trainer

_HEADER = (
    f"{'step':>7} {'train loss':>11} {'val loss':>9}   "
    f"{'bits/byte':>9} {'tokens/s':>9} {'elapsed':>8}"
)


class TrainProgress:
    """A `Reporter` for people: a bar that stays below, and above it a row per evaluation.

    Off a terminal there is no bar, and the rows are plain lines.
    """

    def __init__(self, config: RunConfig) -> None:
        self._has_header = False
        self._max_iters = config.train.max_iters
        self._progress = Progress(
            TextColumn("step {task.completed:,}/{task.total:,}"),
            BarColumn(bar_width=None),
            TextColumn(
                "loss {task.fields[loss]} lr {task.fields[rate]} {task.fields[speed]} tok/s"
            ),
            TimeRemainingColumn(compact=True),
            console=err,
            disable=not err.is_terminal,
            transient=True,
            expand=True,
        )
        self._task = self._progress.add_task(
            "", total=self._max_iters, loss="-", rate="-", speed="-"
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def print_lines(self, lines: list[str]) -> None:
        for line in lines:
            err.print(raw(line), soft_wrap=not err.is_terminal)

    def stepped(self, report: StepReport) -> None:
        self._progress.update(
            self._task,
            completed=report.step,
            loss=f"{report.loss:.3f}",
            rate=f"{report.learning_rate:.2g}",
            speed=count(round(report.tokens_per_second)),
        )

    def evaluated(self, report: EvaluationReport) -> None:
        if not self._has_header:
            err.print(Text(_HEADER, style="dim"), soft_wrap=True)
            self._has_header = True
        mark = "*" if report.is_best else " "
        train_loss = "-" if report.train_loss is None else f"{report.train_loss:.4f}"
        row = Text(f"{report.step:>7,} {train_loss:>11} ")
        row.append(f"{report.val_loss:>9.4f} {mark}", style="bold green" if report.is_best else "")
        row.append(f" {report.bits_per_byte:>9.3f} {report.tokens_per_second:>9,.0f}")
        row.append(f" {duration(report.elapsed):>8}")
        err.print(row, soft_wrap=True)

    def sampled(self, text: str) -> None:
        indent = " " * 8
        for line in text.splitlines():
            for part in raw(line).wrap(err, max(20, err.width - len(indent) - 1)):
                if part.plain.strip():
                    err.print(Text(indent + part.plain.rstrip(), "dim italic"), soft_wrap=True)

    def noted(self, message: str) -> None:
        print_note(message)


def run_lines(trainer: Trainer) -> list[str]:
    """What is about to be trained, on what, where."""
    assert trainer.folder is not None
    config, facts = trainer.config, trainer.dataset.metadata
    sizes = config.model
    parameters = sum(p.numel() for p in trainer.model.parameters())
    cores = torch.get_num_threads()
    threads = f", {cores} thread{'s' * (cores > 1)}" if trainer.device.type == "cpu" else ""
    read = min(facts.val_tokens, config.train.eval_tokens)
    validation = (
        count(read) if read == facts.val_tokens else f"{count(read)} of {count(facts.val_tokens)}"
    )
    epochs = trainer.tokens_per_step * config.train.max_iters / facts.train_tokens
    model = f"Model: {sizes.family}, {count(parameters)} parameters ({model_size(sizes)})"
    text = (
        f"Text:  {facts.corpus} ({facts.kind}, vocabulary {count(facts.vocab_size)}), "
        f"{count(facts.train_tokens)} tokens; {validation} to validate"
    )
    run = (
        f"Run:   {count(config.train.max_iters)} steps of {count(trainer.tokens_per_step)} tokens "
        f"({epochs:.3g} times the text) on {trainer.device}, {config.train.precision}{threads}"
    )
    return [model, text, run, f"Where: {trainer.folder.path}"]


def result_table(folder: RunFolder, result: TrainResult) -> Table:
    """How the run ended and where everything lies."""
    table = key_value_table()
    if result.best_val_loss is not None:
        at = f"at step {count(result.best_step)} of {count(result.step)}"
        table.add_row("best validation loss", f"{result.best_val_loss:.4f} {at}")
    if result.best_step and (overfitting := read_run(folder.path).overfitting):
        table.add_row("", f"{overfitting}: it began to learn the text by heart")
    table.add_row("time", f"{duration(result.elapsed)}, {duration(result.step_seconds)} of steps")
    table.add_row(
        "speed",
        f"{count(round(result.tokens_per_second))} tokens/s, {result.mfu:.0%} of this "
        "machine's measured peak",
    )
    table.add_row("model", raw(str(folder.checkpoint)))
    table.add_row("metrics", raw(str(folder.metrics)))
    return table


def next_commands(trainer: Trainer, data_dir: Path, result: TrainResult) -> None:
    """What to type next."""
    folder, corpus = trainer.folder, trainer.dataset.metadata.corpus
    assert folder is not None
    usual = data_dir == DEFAULT_DATA_DIR or "MINIGPT_DATA" in os.environ
    elsewhere = "" if usual else f" --data-dir {shlex.quote(str(data_dir))}"
    if not result.finished:
        print_note(f"Stopped at step {result.step:,} and saved. To go on:")
        err.print(raw(f"  {folder.command('train --resume')}{elsewhere}"), soft_wrap=True)
        return
    print_note("Next:")
    # A text of one's own may lack the characters of any prompt that could be offered.
    prompt = '--prompt "ROMEO:" ' if corpus == "shakespeare" else ""
    for command in (f"generate {prompt}--checkpoint", "eval", "inspect"):
        data = elsewhere if command == "eval" else ""
        err.print(raw(f"  {folder.command(command)}{data}"), soft_wrap=True)


def estimate_table(config: RunConfig, estimate: Estimate) -> Table:
    """What a run would cost."""
    table = key_value_table()
    train = config.train
    table.add_row("parameters", count(estimate.parameters))
    table.add_row("tokens per step", count(estimate.tokens_per_step))
    table.add_row("steps", count(train.max_iters))
    table.add_row("training tokens", count(estimate.training_tokens))
    table.add_row("epochs over the text", f"{estimate.epochs:.2f}")
    table.add_row("time per step", f"{estimate.seconds_per_step * 1000:.1f} ms")
    table.add_row("time per evaluation", duration(estimate.evaluation_seconds))
    table.add_row("time in all", duration(estimate.total_seconds))
    if estimate.peak_memory_bytes is not None:
        table.add_row("memory", size(estimate.peak_memory_bytes))
    table.add_row("run folder", size(estimate.run_folder_bytes))
    enough = estimate.free_disk_bytes > 2 * estimate.run_folder_bytes
    table.add_row(
        "free disk", size(estimate.free_disk_bytes) + ("" if enough else "  [red]too little[/]")
    )
    table.add_row("device", f"{train.device}, {train.precision}")
    return table
