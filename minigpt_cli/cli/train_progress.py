"""How training looks in the terminal, while it runs and at its end."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import torch
from rich.cells import cell_len
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from minigpt_cli.cli.console import err, has_wide, line_breaks, print_note
from minigpt_cli.cli.options import DEFAULT_DATA_DIR
from minigpt_cli.cli.plan_table import by_kind
from minigpt_cli.cli.render import (
    TimeLeft,
    count,
    key_value_table,
    model_size,
    number,
    raw,
    size,
    to_the_right,
)
from minigpt_cli.cli.text_files import dataset_lines
from minigpt_cli.config.schema import RunConfig
from minigpt_cli.errors import about
from minigpt_cli.inspection.run_history import Overfitting, read_run
from minigpt_cli.io.text import duration, three_digits
from minigpt_cli.language import _, ngettext
from minigpt_cli.runs.folder import RunFolder, argument
from minigpt_cli.runs.metrics import EvaluationRow, StepRow
from minigpt_cli.training.lora import parameter_counts
from minigpt_cli.training.planning.estimate import Estimate
from minigpt_cli.training.reporter import Reporter, TrainResult
from minigpt_cli.training.speed import Slowdown
from minigpt_cli.training.trainer import Trainer

_MANY_EPOCHS, _SMALL_TEXT = 20, 200_000
_LABEL = re.compile(r"\s*[^\s:：]*[:：]\s*|\s+")
"""What a line of the header begins with."""
_NOTICEABLE_SHARE = 0.01
"""Of the machine's peak; a smaller one says only that the model is tiny."""


class TrainProgress(Reporter):
    """A progress bar that stays at the bottom, and above it a row per evaluation.

    Without a terminal, only the rows are printed.
    """

    def __init__(self, config: RunConfig, step: int = 0) -> None:
        self._has_header = self._stopping = False
        self._max_iters = config.train.max_iters
        self._step = TextColumn(_("step {task.completed:,}/{task.total:,}"))
        self._doing = TextColumn("{task.fields[doing]}", style="bold")
        self._progress = Progress(
            self._step,
            BarColumn(bar_width=None),
            TextColumn(
                _("loss {task.fields[loss]} lr {task.fields[rate]} {task.fields[speed]} tok/s")
            ),
            TimeLeft(),
            self._doing,
            console=err,
            disable=not err.is_terminal,
            transient=True,
            expand=True,
        )
        self._task = self._progress.add_task(
            "", total=self._max_iters, completed=step, loss="-", rate="-", speed="-", doing=""
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def print_lines(self, lines: list[str]) -> None:
        for line in lines:
            for part in _hanging(line, err.width) if err.is_terminal else [raw(line)]:
                err.print(part, soft_wrap=True)

    def stepped(self, row: StepRow) -> None:
        self._progress.update(
            self._task,
            completed=row.step,
            loss=f"{row.loss:.3f}",
            rate=number(row.learning_rate, ".2g"),
            speed=number(row.tokens_per_second, ",.0f"),
        )

    def evaluating(self, stage: str, done: int, total: int) -> None:
        if not self._stopping:
            doing = f"{_(stage).lower()} {done / total:.0%}" if done < total else ""
            self._progress.update(self._task, doing=doing)

    def stopping(self, message: str) -> None:
        """Answers a signal, from any thread: in the bar, or without one in a line."""
        self._stopping = True
        self._progress.columns = (self._step, self._doing)  # all of it fits into 80 columns
        self._progress.update(self._task, doing=message)
        if not err.is_terminal:
            print_note(message)

    def evaluated(self, row: EvaluationRow) -> None:
        if not self._has_header:
            err.print(Text(_header(), style="dim"), soft_wrap=True)
            self._has_header = True
        mark = "*" if row.is_best else " "
        line = Text(f"{row.step:>7,} {number(row.train_loss, '.4f'):>11} ")
        line.append(f"{row.val_loss:>9.4f} {mark}", style="bold green" if row.is_best else "")
        line.append(f" {number(row.bits_per_byte, '.3f'):>9}")
        line.append(f" {number(row.tokens_per_second, ',.0f'):>9}")
        line.append(" " + to_the_right(duration(row.elapsed or 0.0), 11))
        err.print(line, soft_wrap=True)

    def sampled(self, text: str) -> None:
        indent = " " * 8
        for line in text.splitlines():
            for part in raw(line).wrap(err, max(20, err.width - len(indent) - 1)):
                if part.plain.strip():
                    err.print(Text(indent + part.plain.rstrip(), "dim italic"), soft_wrap=True)

    def slowed(self, slowdown: Slowdown) -> None:
        several = torch.get_num_threads() > 1
        advice = _("; Ctrl-C, then --resume --set train.threads=1 may be faster") if several else ""
        now, before = duration(slowdown.seconds_now), duration(slowdown.seconds_before)
        print_note(
            _(
                "A step takes {now} now and took {before}: another program keeps this "
                "machine busy{advice}"
            ).format(now=now, before=before, advice=advice)
        )

    def noted(self, message: str) -> None:
        print_note(message)


def _hanging(line: str, width: int) -> Iterator[Text]:
    """A line of the header, such as `Text:   ...`, in parts that begin below its value."""
    label = _LABEL.match(line)
    head = label[0] if label else ""
    indent = " " * cell_len(head)
    text, room = raw(line.removeprefix(head)), max(20, width - len(indent))
    wide = has_wide(text.plain)
    for part in text.divide(line_breaks(text.plain, room)) if wide else text.wrap(err, room):
        yield raw(head + part.plain.rstrip())
        head = indent


def _header() -> str:
    """The names of the columns; after the validation loss there is room for the mark."""
    columns = (
        (_("step"), 7), (_("train loss"), 11), (_("val loss"), 9), ("", 1),
        (_("bits/byte"), 9), (_("tokens/s"), 9), (_("elapsed"), 11),
    )  # fmt: skip
    return " ".join(to_the_right(name, width) for name, width in columns)


def run_lines(trainer: Trainer) -> list[str]:
    """What is about to be trained, on which text, where."""
    config, text, learner = trainer.config, trainer.dataset.metadata, trainer.learner
    sizes, device = config.model, learner.device
    parameters, trained = parameter_counts(learner.model)
    part = _("; {trained} trained")
    if config.lora is not None:
        part = _("; {trained} trained in adapters")
    of_these = "" if trained == parameters else part.format(trained=count(trained))
    cores = torch.get_num_threads()
    threads = ngettext(", {cores} thread", ", {cores} threads", cores).format(cores=cores)
    threads = threads if device.type == "cpu" else ""
    if trainer.group.size > 1:
        threads += _(", {number} processes ({strategy})").format(
            number=trainer.group.size, strategy=learner.strategy.name
        )
    validation = count(text.val_tokens)
    epochs = learner.tokens_per_step * config.train.max_iters / text.train_tokens
    steps = _("{max_iters} steps of {tokens_per_step} tokens").format(
        max_iters=count(config.train.max_iters), tokens_per_step=count(learner.tokens_per_step)
    )
    tokens = _("{train_tokens} tokens for training, {validation} for validation").format(
        train_tokens=count(text.train_tokens), validation=validation
    )
    return [
        _("Model:  {family}, {parameters} parameters ({sizes})").format(
            family=sizes.family, parameters=count(parameters), sizes=model_size(sizes)
        )
        + of_these,
        _("Text:   {corpus} ({kind}, vocabulary {vocab_size}), {tokens}").format(
            corpus=text.corpus, kind=text.kind, vocab_size=count(text.vocab_size), tokens=tokens
        ),
        *(f"        {line}" for line in dataset_lines(trainer.dataset, config.data)),
        _("Run:    {steps} ({epochs} epochs) on {device}, {precision}{threads}").format(
            steps=steps,
            epochs=three_digits(epochs),
            device=device,
            precision=config.train.precision,
            threads=threads,
        ),
        _("Output: {path}").format(path=trainer.folder.path),
        *_forecast(trainer, epochs),
    ]


def _forecast(trainer: Trainer, epochs: float) -> list[str]:
    """How long the run takes, and what to take instead when the text is too small for it."""
    learner, train_tokens = trainer.learner, trainer.dataset.metadata.train_tokens
    lines = []
    state = trainer.state
    if learner.expected_seconds is not None:
        lines.append(_("Time:   about {time}").format(time=duration(learner.expected_seconds)))
    elif state.step and state.elapsed:
        left = (trainer.config.train.max_iters - state.step) * state.elapsed / state.step
        lines.append(_("Time:   about {time} more").format(time=duration(left)))
    is_careful = trainer.config.train.patience > 0  # as with the preset auto
    if epochs > 1.1 * _MANY_EPOCHS and train_tokens < _SMALL_TEXT and not is_careful:
        steps = max(1, _MANY_EPOCHS * train_tokens // learner.tokens_per_step)
        lines.append(
            _(
                "Note:   {epochs:,.0f} epochs of so small a text are learned by heart; take "
                "--preset auto, which suits the text, or --max-iters {steps} ({many_epochs} "
                "epochs), or --set train.patience=3, which ends when it no longer improves"
            ).format(epochs=epochs, steps=steps, many_epochs=_MANY_EPOCHS)
        )
    return lines


def result_table(folder: RunFolder, result: TrainResult) -> Table:
    """How the run ended and where its files are."""
    table = key_value_table()
    if result.best_val_loss is not None:
        at = _("at step {best_step} of {step}").format(
            best_step=count(result.best_step), step=count(result.step)
        )
        table.add_row(
            _("best validation loss"),
            f"{result.best_val_loss:.4f} {at}",
        )
    if result.stopped_early:
        table.add_row(
            _("ended early"), _("no better evaluation for as long as train.patience allows")
        )
    if result.best_step and (rise := read_run(folder.path).rise):
        learned = _(": it started to memorize the training text")
        table.add_row("", f"{rise}{learned if type(rise) is Overfitting else ''}")
    table.add_row(
        _("time"),
        _("{elapsed}, {step_seconds} in steps").format(
            elapsed=duration(result.elapsed), step_seconds=duration(result.step_seconds)
        ),
    )
    speed = _("{tokens_per_second} tokens/s").format(
        tokens_per_second=count(round(result.tokens_per_second))
    )
    if result.mfu >= _NOTICEABLE_SHARE:
        speed += _(", {mfu:.0%} of this machine's measured peak").format(mfu=result.mfu)
    table.add_row(_("speed"), speed)
    table.add_row(_("model"), raw(str(folder.checkpoint)))
    table.add_row(_("metrics"), raw(str(folder.metrics)))
    return table


def next_commands(trainer: Trainer, data_dir: Path, result: TrainResult) -> None:
    """Prints what to type next."""
    folder, corpus = trainer.folder, trainer.dataset.metadata.corpus
    usual = data_dir == DEFAULT_DATA_DIR or "MINIGPT_DATA" in os.environ
    elsewhere = "" if usual else f" --data-dir {argument(data_dir)}"
    if not result.finished:
        print_note(_("Stopped at step {step:,} and saved. To continue:").format(step=result.step))
        err.print(raw(f"  {folder.command('train --resume')}{elsewhere}"), soft_wrap=True)
        return
    print_note(_("Next:"))
    # Any other text may lack the characters of a prompt that could be suggested here.
    known = {"shakespeare": "ROMEO:", "lunyu": "子曰："}.get(corpus)
    prompt = f'--prompt "{known}" ' if known else ""
    for command in (f"generate {prompt}--checkpoint", "eval", "inspect"):
        data = elsewhere if command == "eval" else ""
        err.print(raw(f"  {folder.command(command)}{data}"), soft_wrap=True)


def quit_message(trainer: Trainer) -> str:
    """What is left of a run that was ended in the middle of a step or a save."""
    saved, command = trainer.writer.saved_step, trainer.folder.command("train --resume")
    if saved is None:
        return _("Quit, and nothing is saved.")
    return _("Quit without saving; {command} goes on from step {saved:,}").format(
        command=command, saved=saved
    )


def estimate_table(config: RunConfig, estimate: Estimate) -> Table:
    """What a run would cost."""
    table = key_value_table()
    train = config.train
    table.add_row(_("parameters"), count(estimate.parameters))
    table.add_row(_("tokens per step"), count(estimate.tokens_per_step))
    table.add_row(_("steps"), count(train.max_iters))
    table.add_row(_("training tokens"), count(estimate.training_tokens))
    table.add_row(_("epochs over the text"), three_digits(estimate.epochs))
    milliseconds = estimate.seconds_per_step * 1000
    table.add_row(_("time per step"), _("{time:.1f} ms").format(time=milliseconds))
    table.add_row(_("time per evaluation"), duration(estimate.evaluation_seconds))
    table.add_row(_("total time"), duration(estimate.total_seconds))
    if estimate.peak_memory_bytes is not None:
        table.add_row(_("memory"), size(estimate.peak_memory_bytes))
    computed = about(size(estimate.memory.peak), by_kind(estimate.memory))
    table.add_row(_("memory, computed"), computed)
    table.add_row(_("run folder"), size(estimate.run_folder_bytes))
    enough = estimate.free_disk_bytes > 2 * estimate.run_folder_bytes
    table.add_row(
        _("free disk"),
        size(estimate.free_disk_bytes) + ("" if enough else _("  [red]too little[/]")),
    )
    table.add_row(
        _("device"),
        f"{train.device}, {train.precision}",
    )
    return table
