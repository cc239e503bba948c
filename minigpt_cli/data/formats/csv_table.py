"""CSV: a header, and a row a record; fields may be quoted and hold line breaks."""

import csv
from collections.abc import Iterator

from minigpt_cli.data.formats import base
from minigpt_cli.data.formats.base import Opened, Part, Reading, no_field
from minigpt_cli.data.formats.lines import Lines
from minigpt_cli.errors import CorpusError
from minigpt_cli.language import _

_DELIMITERS = (",", "\t", ";")


def read_csv(file: Opened, how: Reading) -> Iterator[Part]:
    """Reads a column of a table with a header.

    Fields are separated by commas, tabs or semicolons: whichever gives the column its name.
    """
    csv.field_size_limit(base.MOST_DOCUMENT)
    lines = Lines(file, how.newlines)
    source = iter(lines)
    header = next(source, "")
    delimiter, names = split_header(header, how.text_field)
    if how.text_field not in names:
        where = _("{path}: the header (line 1)").format(path=file.path)
        raise no_field(where, how.text_field, names)
    column = names.index(how.text_field)
    rows = csv.reader(source, delimiter=delimiter, strict=True)
    while True:
        first = lines.number + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            problem = _("{path}:{line}: not CSV ({error}); repair the line")
            raise CorpusError(problem.format(path=file.path, line=first, error=error)) from None
        if row is None:
            break
        if len(row) > column:
            yield Part(row[column], True, lines.take_read())
        elif row:
            raise CorpusError(
                _(
                    "{path}:{line}: {columns} columns, and the header has {names}; repair the line"
                ).format(path=file.path, line=first, columns=len(row), names=len(names))
            )
    yield Part("", True, lines.take_read())


def split_header(line: str, field: str) -> tuple[str, list[str]]:
    """What separates the fields of a table, and the names in its first line.

    Args:
        line: the first line.
        field: the wanted name; the separator is one that gives it, if any does.
    """
    found = [(each, next(csv.reader([line], delimiter=each), [])) for each in _DELIMITERS]
    return max(found, key=lambda item: (field in item[1], len(item[1])))
