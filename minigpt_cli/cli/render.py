"""Tables, formatted numbers, and progress bars."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from minigpt_cli.cli.console import err, in_unicode
from minigpt_cli.io.text import printable_line

if TYPE_CHECKING:
    from minigpt_cli.config.schema import ModelConfig


def key_value_table(title: str | None = None) -> Table:
    """An empty table with a column of names and a column of values."""
    table = Table(title=title, box=None, show_header=False, title_justify="left", pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def grid(*columns: str, text_columns: int = 1, title: Text | None = None) -> Table:
    """An empty table with a header; the first `text_columns` are text, the others are numbers."""
    table = Table(
        box=SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0)
    )
    for i, column in enumerate(columns):
        is_text = i < text_columns
        table.add_column(
            column, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text
        )
    return table


def count(number: int) -> str:
    """A number with thousands separators, as in 1,234,567."""
    return f"{number:,}"


def number(value: float | None, form: str) -> str:
    """A number in this format; a dash where there is none."""
    return "-" if value is None else format(value, form)


def size(number: float) -> str:
    """A number of bytes in the largest unit that gives at least 1; 1.5 MB is 1,500,000 bytes."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def duration(seconds: float) -> str:
    """A duration: 250 ms, 12.3 s, 1:23 (minutes) or 1:02:03 (hours)."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def raw(text: str, style: str = "") -> Text:
    """A name or a line without markup, with control characters and line breaks escaped."""
    return Text(printable_line(text), style=style)


def one_line(text: str) -> str:
    """The text with its line breaks shown as symbols."""
    return text.replace("\r", "").replace("\n", "↵" if in_unicode() else "\\n")


def shortened(text: str, length: int) -> str:
    """The first `length` characters of a text, with an ellipsis if it is longer."""
    return text if len(text) <= length else f"{text[:length]}..."


def model_size(model: "ModelConfig") -> str:
    """A model's layers, heads and width."""
    return f"{model.n_layer} layers, {model.n_head} heads, {model.n_embd} wide"


def losses(train: float | None, validation: float | None) -> str:
    """The known losses, by name."""
    named = {"train": train, "validation": validation}
    return ", ".join(f"{name} {loss:.4f}" for name, loss in named.items() if loss is not None)


@contextmanager
def file_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A `data.progress.Progress` that shows a bar for each stage on a terminal, while in it."""
    text, bar = TextColumn("{task.description}"), BarColumn(bar_width=None)
    columns = (text, bar, DownloadColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=err, transient=True, disable=not err.is_terminal, expand=True
    ) as progress:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done)

        yield show
