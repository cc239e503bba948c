"""Tables, formatted numbers, and progress bars."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.measure import Measurement
from rich.progress import BarColumn, DownloadColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column, Table
from rich.text import Text

from minigpt_cli.cli.console import err, has_wide, in_unicode
from minigpt_cli.data.progress import Progress
from minigpt_cli.io.text import duration, printable_line
from minigpt_cli.language import _

if TYPE_CHECKING:
    from minigpt_cli.config.schema import ModelConfig


SURPRISE_STYLES = (
    "", "#000000 on #b9b38f", "#000000 on #e6c34a", "#000000 on #ee8a3a",
    "bold #ffffff on #b3261e",
)  # fmt: skip
"""From expected to surprising. Text and background are both set, so that each is readable on dark
and light terminals, and the backgrounds differ in brightness, not only in hue."""


PASSAGE_WIDTH = 24
"""Columns that a passage of a text needs at least; it is broken anywhere."""
_LEAST_CHINESE = 24
"""Columns below which a Chinese text is not squeezed."""


def legend(names: Sequence[str], styles: Sequence[str]) -> Text:
    """The names of some colors, each in its own."""
    patches = [(f" {name} ", style) for name, style in zip(names, styles, strict=True)]
    return Text(" ").join(Text.assemble(patch) for patch in patches)


def key_value_table(title: str | None = None) -> Table:
    """An empty table with a column of names and a column of values."""
    table = Table(title=title, box=None, show_header=False, title_justify="left", pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def grid(
    *columns: str, text_columns: int = 1, prose: Sequence[int] = (), title: Text | None = None
) -> Table:
    """An empty table with a header, to be shown through `fit`.

    Args:
        columns: the headers.
        text_columns: how many of the first ones are text; the others are numbers.
        prose: the columns whose cells may be wrapped between words.
        title: a line above the table.
    """
    table = Table(
        box=SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0)
    )
    for i, column in enumerate(columns):
        is_text = i < text_columns
        table.add_column(
            column, justify="left" if is_text else "right", overflow="fold", no_wrap=i not in prose
        )
    return table


def fit(table: Table, width: int) -> Table:
    """A grid that breaks no name or number at this width.

    Where the columns do not fit side by side, rows and columns change places, and where that does
    not fit either, each row becomes a list of names and values.
    """
    if table.box is not SIMPLE_HEAD or needed_width(table) <= width or not table.row_count:
        return table
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    headers = [str(column.header) for column in table.columns]
    turned = grid(headers[0], *[""] * len(rows), text_columns=1, title=_title_of(table))
    for column, cell in zip(turned.columns[1:], next(zip(*rows, strict=True)), strict=True):
        column.header = cell
    for header, *cells in list(zip(headers, *rows, strict=True))[1:]:
        turned.add_row(header, *cells)
    turned.caption = table.caption
    if len(rows) > 1 and needed_width(turned) <= width:
        return turned
    listed = key_value_table()
    listed.title, listed.caption = _title_of(table), table.caption
    for i, row in enumerate(rows):
        if i:
            listed.add_row("", "")
        for header, cell in zip(headers, row, strict=True):
            if _cells(cell):
                listed.add_row(header, cell)
    return listed


def needed_width(table: Table) -> int:
    """Columns of the terminal that a grid needs to break nothing but prose between words.

    A column of prose with a `min_width` is broken anywhere, as text without spaces has to be.
    """
    measure = Measurement.get(err, err.options.update(max_width=100_000), table).maximum
    spare = 0
    for column in table.columns:
        texts = [column.header, *column.cells]
        widest = max(map(_cells, texts))
        if not column.no_wrap:
            words = (word for text in texts for word in _plain(text).split())
            least = column.min_width or max(map(_least_cells, words), default=0)
            spare += widest - min(widest, least)
    return measure - spare


def _least_cells(word: str) -> int:
    """The room that a word needs; Chinese has no spaces and may be broken anywhere."""
    return min(cell_len(word), _LEAST_CHINESE) if has_wide(word) else cell_len(word)


def _title_of(table: Table) -> Text | None:
    return table.title if isinstance(table.title, Text) else None


def _plain(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else err.render_str(str(cell)).plain


def _cells(cell: object) -> int:
    return max(map(cell_len, _plain(cell).split("\n")), default=0)


def count(number: int) -> str:
    """A number with thousands separators, as in 1,234,567."""
    return f"{number:,}"


def short_count(number: float) -> str:
    """A number in three or four digits: 1.5 M is 1,500,000."""
    for unit in ("", " k", " M", " G"):
        if number < 1000:
            return f"{number:.0f}" if not unit else f"{number:.1f}{unit}"
        number /= 1000
    return f"{number:.1f} T"


def number(value: float | None, form: str) -> str:
    """A number in this format; a dash where there is none."""
    return "-" if value is None else format(value, form)


def size(number: float) -> str:
    """A number of bytes in the largest unit that gives at least 1; 1.5 MB is 1,500,000 bytes."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {_(unit)}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def to_the_right(text: str, width: int) -> str:
    """The text at the right end of this many columns; a Chinese character takes two."""
    return " " * (width - cell_len(text)) + text


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
    return _("{n_layer} layers, {n_head} heads, {n_embd} wide").format(
        n_layer=model.n_layer, n_head=model.n_head, n_embd=model.n_embd
    )


def losses(train: float | None, validation: float | None) -> str:
    """The known losses, by name."""
    named = ((_("train {loss:.4f}"), train), (_("validation {loss:.4f}"), validation))
    return _(", ").join(name.format(loss=loss) for name, loss in named if loss is not None)


class TimeLeft(ProgressColumn):
    """The time a task still takes, with its units."""

    max_refresh = 0.5

    def get_table_column(self) -> Column:
        return Column(no_wrap=True)

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        return Text(
            "" if left is None or task.finished else _("{left} left").format(left=duration(left))
        )


@contextmanager
def file_progress() -> Iterator[Progress]:
    """Shows bars on a terminal while texts are downloaded and prepared; they disappear when done.

    Yields:
        What to call with the name of a stage, the bytes done and the total: a bar for each stage.
    """
    with _bars(DownloadColumn()) as show:
        yield show


@contextmanager
def count_progress(unit: str) -> Iterator[Progress]:
    """Shows bars on a terminal while things are counted; they disappear when done.

    Args:
        unit: what is counted, as in "tokens".

    Yields:
        What to call with the name of a stage, how many are done and the total.
    """
    with _bars(TextColumn(f"{{task.completed:,.0f}}/{{task.total:,.0f}} {unit}")) as show:
        yield show


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Shows a moving bar on a terminal during work whose length is not known."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None))
    with _on_terminal(*columns) as progress:
        progress.add_task(what, total=None)
        yield


@contextmanager
def _bars(amount: ProgressColumn) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), amount, TimeLeft())
    with _on_terminal(*columns) as progress:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(_(stage), total=total)
            progress.update(tasks[stage], completed=done)

        yield show


def _on_terminal(*columns: ProgressColumn) -> Bars:
    """Bars at the bottom of the terminal, which leave nothing behind, however they end."""
    return Bars(*columns, console=err, transient=True, disable=not err.is_terminal, expand=True)
