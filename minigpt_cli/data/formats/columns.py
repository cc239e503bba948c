"""A column of an Arrow table becomes documents: what Parquet and Arrow files have in common."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minigpt_cli.data.formats import base
from minigpt_cli.data.formats.base import no_field, too_long
from minigpt_cli.data.formats.streams import install
from minigpt_cli.errors import CorpusError
from minigpt_cli.language import _


def check_pyarrow(path: Path) -> None:
    """Raises `CorpusError` unless pyarrow is installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        problem = _("{path}: reading Parquet and Arrow needs pyarrow; {install}")
        raise CorpusError(problem.format(path=path, install=install())) from None


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Turns what pyarrow raises for a damaged file into a `CorpusError`."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, MemoryError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else _("it claims to be larger")
        raise CorpusError(
            _(
                "{path}: cannot be read ({reason}); it may be damaged or incomplete: copy or "
                "download it again"
            ).format(path=path, reason=reason)
        ) from None


def check_column(path: Path, schema: Any, field: str) -> None:
    """Raises unless a table has a column of text with this name.

    Args:
        path: the file.
        schema: of the table, pyarrow's.
        field: the column's name.

    Raises:
        CorpusError: it has not.
    """
    from pyarrow import types

    if field not in schema.names:
        raise no_field(str(path), field, list(schema.names))
    kind = schema.field(field).type
    value = kind.value_type if types.is_dictionary(kind) else kind
    if not (
        types.is_string(value) or types.is_large_string(value) or types.is_string_view(value)
        or types.is_binary(value) or types.is_large_binary(value)
    ):  # fmt: skip
        raise CorpusError(
            _("{path}: the column {field} is not text ({kind!s:.60}); choose another").format(
                path=path, field=field, kind=kind
            ),
            settings=("data.text_field",),
        )


def texts(path: Path, column: Any, before: int) -> Iterator[str]:
    """The values of a column; empty where there is none.

    Args:
        path: the file.
        column: an array of strings, bytes, or indices into such.
        before: rows of the file before this column's first.

    Raises:
        CorpusError: a value is not UTF-8, or too long.
    """
    from pyarrow import types

    with damaged(path):
        column.validate(full=True)  # an offset that is not checked leads out of memory
    encoded = types.is_dictionary(column.type)
    values = column.dictionary if encoded else column
    indices = column.indices.to_pylist() if encoded else range(len(column))
    for row, index in enumerate(indices, before + 1):
        value = None if index is None else values[index]
        if value is None or not value.is_valid:
            yield ""
            continue
        data = value.as_buffer()
        if data.size > base.MOST_DOCUMENT:
            raise too_long(_("{path}: row {row:,}").format(path=path, row=row))
        try:
            yield str(memoryview(data), "utf-8")
        except UnicodeDecodeError as error:
            raise CorpusError(
                _("{path}: row {row:,} is not UTF-8 at byte {place}; repair the table").format(
                    path=path, row=row, place=error.start
                )
            ) from None
