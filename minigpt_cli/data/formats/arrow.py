"""Arrow files, as Hugging Face's `datasets` saves them: a column, batch by batch."""

from collections.abc import Iterator
from typing import Any

from minigpt_cli.data.formats.base import Opened, Part, Reading, with_line_ends
from minigpt_cli.data.formats.columns import check_column, check_pyarrow, damaged, texts
from minigpt_cli.errors import CorpusError, reraise_as
from minigpt_cli.io.regular import open_regular


def read_arrow(file: Opened, how: Reading) -> Iterator[Part]:
    """Reads a column of an Arrow file, of the streaming or the random-access kind."""
    check_pyarrow(file.path)
    import pyarrow
    from pyarrow import ipc

    with reraise_as(CorpusError, file.path, "read"), open_regular(file.path) as opened:
        size = opened.seek(0, 2)
        opened.seek(0)
        random_access = opened.read(6) == b"ARROW1"
        opened.seek(0)
        with damaged(file.path):
            source = pyarrow.PythonFile(opened, mode="r")
            table = ipc.open_file(source) if random_access else ipc.open_stream(source)
            check_column(file.path, table.schema, how.text_field)
            column = table.schema.names.index(how.text_field)
        batches = _batches(table) if random_access else iter(table)
        row, place = 0, 0
        while True:
            with damaged(file.path):
                batch = next(batches, None)
            before, place = place, max(place, opened.tell())
            if batch is None:
                break
            read = place - before
            for text in texts(file.path, batch.column(column), row):
                yield Part(with_line_ends(text, how.newlines), True, read)
                read = 0
            row += len(batch)
    yield Part("", True, size - before)


def _batches(table: Any) -> Iterator[Any]:
    for number in range(table.num_record_batches):
        yield table.get_batch(number)
