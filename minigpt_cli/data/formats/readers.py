"""The reader of each format."""

from collections.abc import Iterator

from minigpt_cli.data.formats.arrow import read_arrow
from minigpt_cli.data.formats.base import Opened, Part, Reader, Reading
from minigpt_cli.data.formats.csv_table import read_csv
from minigpt_cli.data.formats.jsonl import read_jsonl
from minigpt_cli.data.formats.names import FormatName
from minigpt_cli.data.formats.parquet import read_parquet
from minigpt_cli.data.formats.text import read_text

_READERS: dict[FormatName, Reader] = {
    "text": read_text, "jsonl": read_jsonl, "csv": read_csv, "parquet": read_parquet,
    "arrow": read_arrow,
}  # fmt: skip


def read_parts(file: Opened, format_name: FormatName, how: Reading) -> Iterator[Part]:
    """Reads a file of any format; the last part ends a document."""
    return _READERS[format_name](file, how)
