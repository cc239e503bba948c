"""What the reader of a format gives, and the errors that readers share."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from minigpt_cli.config.choices import Newlines
from minigpt_cli.data.formats.names import Compression
from minigpt_cli.errors import CorpusError
from minigpt_cli.language import _

MOST_DOCUMENT = 1 << 28
"""Characters of one record: 256 million. A compressed file of a few megabytes can hold more."""


class Part(NamedTuple):
    """A part of a file's text."""

    text: str
    ends_document: bool
    """Whether a record ends here, or the file."""
    read: int
    """Bytes on disk that were read since the part before."""


class Opened(Protocol):
    """A file to read, and how its bytes become characters."""

    @property
    def path(self) -> Path: ...
    @property
    def encoding(self) -> str: ...
    @property
    def compression(self) -> Compression: ...


@dataclass(frozen=True)
class Reading:
    """How files are read."""

    newlines: Newlines = "lf"
    text_field: str = "text"
    """The field or column of a record that has its text."""


class Reader(Protocol):
    """Reads one format: gives the text of a file, of which the last part ends a document."""

    def __call__(self, file: Opened, how: Reading) -> Iterator[Part]:
        """Reads a file from its beginning.

        Raises:
            CorpusError: the file cannot be read, is damaged, or has no such field.
        """


def with_line_ends(text: str, newlines: Newlines) -> str:
    """The text of a record with its line ends as the settings want them."""
    if newlines == "lf" and "\r" in text:
        return text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def no_field(where: str, field: str, names: list[str]) -> CorpusError:
    """The error for a record, or a whole file, without the wanted field."""
    shown = _(", ").join(repr(name)[1:-1][:40] for name in names[:12]) + (
        " ..." if len(names) > 12 else ""
    )
    return CorpusError(
        _('{where}: no field "{field}"; it has: {names}; choose one as the text').format(
            where=where, field=field, names=shown or _("nothing")
        ),
        settings=("data.text_field",),
    )


def too_long(where: str) -> CorpusError:
    """The error for a record, or a line, beyond `MOST_DOCUMENT`."""
    return CorpusError(
        _("{where}: longer than {most:,} characters, the most of one document; split it").format(
            where=where, most=MOST_DOCUMENT
        )
    )
