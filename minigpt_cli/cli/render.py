"""Facts become tables, and work under way becomes progress bars."""

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

from minigpt_cli.cli.console import err, in_unicode, printable

if TYPE_CHECKING:
    from minigpt_cli.config.schema import ModelConfig


def key_value_table(title: str | None = None) -> Table:
    """An empty table of names and values."""
    table = Table(title=title, box=None, show_header=False, title_justify="left", pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def grid(*columns: str, text_columns: int = 1, title: Text | None = None) -> Table:
    """An empty table with a header; the first `text_columns` are text, the others numbers."""
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
    """1,234,567."""
    return f"{number:,}"


def size(number: float) -> str:
    """Bytes in the largest unit that leaves at least 1: 1.5 MB is 1,500,000 bytes."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def duration(seconds: float) -> str:
    """Milliseconds below a second, seconds below a minute, then 1:23, then 1:02:03."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def raw(text: str, style: str = "") -> Text:
    """Text as it is: no markup is read in it, and it cannot drive the terminal."""
    return Text(printable(text), style=style)


def one_line(text: str) -> str:
    """Text with signs in the place of its line ends."""
    return text.replace("\r", "").replace("\n", "↵" if in_unicode() else "\\n")


def shortened(text: str, length: int) -> str:
    """The beginning of a text, with a sign that it goes on."""
    return text if len(text) <= length else f"{text[:length]}..."


def model_size(model: "ModelConfig") -> str:
    """A model's layers, heads and width."""
    return f"{model.n_layer} layers, {model.n_head} heads, {model.n_embd} wide"


def losses(train: float | None, validation: float | None) -> str:
    """Those that are known, by name."""
    named = {"train": train, "validation": validation}
    return ", ".join(f"{name} {loss:.4f}" for name, loss in named.items() if loss is not None)


@contextmanager
def file_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Shows bars on a terminal while texts are downloaded and prepared; they disappear when done.

    Yields:
        A `data.progress.Progress`: a bar for each stage.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=err, transient=True, disable=not err.is_terminal, expand=True
    ) as progress:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done)

        yield show
