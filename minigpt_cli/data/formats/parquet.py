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
            check_column(file.path, metadata.schema.to_arrow_schema(), field)
            # A value that is stored once for all its rows is not copied for each of them.
            table = ParquetFile(
                source, metadata=metadata, read_dictionary=[field], buffer_size=_BUFFER,
                pre_buffer=False,
            )  # fmt: skip
        total, done, read = table.metadata.num_rows, 0, 0
        batches = table.iter_batches(_rows(metadata), columns=[field], use_threads=False)
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


def _rows(metadata: Any) -> int:
    """Rows of a batch, such that it has a few megabytes.

    The sizes of all columns together: those of one cannot be asked for safely, since pyarrow ends
    the process where they are damaged.
    """
    largest = 1.0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        largest = max(largest, group.total_byte_size / max(1, group.num_rows))
    return max(1, min(_MOST_ROWS, int(_BATCH_BYTES / largest)))
