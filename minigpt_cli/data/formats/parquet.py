"""Parquet: a column of a table, batch by batch."""

from collections.abc import Iterator
from typing import Any

from minigpt_cli.data.formats.base import Opened, Part, Reading, with_line_ends
from minigpt_cli.data.formats.columns import check_column, check_pyarrow, damaged, texts
from minigpt_cli.errors import CorpusError, reraise_as
from minigpt_cli.io.regular import open_regular

_BATCH_BYTES, _MOST_ROWS = 1 << 24, 1024
_BUFFER = 1 << 20


def read_parquet(file: Opened, how: Reading) -> Iterator[Part]:
    """Reads a column of a Parquet file, a few megabytes at a time."""
    check_pyarrow(file.path)
    import pyarrow
    from pyarrow.parquet import ParquetFile

    field = how.text_field
    with reraise_as(CorpusError, file.path, "read"), open_regular(file.path) as opened:
        size = opened.seek(0, 2)
        with damaged(file.path):
            source = pyarrow.PythonFile(opened, mode="r")
            metadata = ParquetFile(source).metadata
            schema = metadata.schema.to_arrow_schema()
        check_column(file.path, schema, field)
        with damaged(file.path):
            # A value that is stored once for all its rows is not copied for each of them.
            table = ParquetFile(
                source, metadata=metadata, read_dictionary=[field], buffer_size=_BUFFER,
                pre_buffer=False,
            )  # fmt: skip
        total, done, read = table.metadata.num_rows, 0, 0
        batches = table.iter_batches(_rows(table, field), columns=[field], use_threads=False)
        while True:
            with damaged(file.path):
                batch = next(batches, None)
            if batch is None:
                break
            before, done = done, done + len(batch)
            progress, read = size * done // max(1, total) - read, size * done // max(1, total)
            for text in texts(file.path, batch.column(0), before):
                yield Part(with_line_ends(text, how.newlines), True, progress)
                progress = 0
    yield Part("", True, size - read)


def _rows(table: Any, field: str) -> int:
    """Rows of a batch, such that it has a few megabytes."""
    metadata = table.metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    largest = 1.0
    for group in groups:
        for place in range(group.num_columns):
            column = group.column(place)
            if column.path_in_schema == field and group.num_rows:
                largest = max(largest, column.total_uncompressed_size / group.num_rows)
    return max(1, min(_MOST_ROWS, int(_BATCH_BYTES / largest)))
