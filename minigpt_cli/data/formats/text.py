"""Plain text: all of the file, decoded."""

from collections.abc import Iterator

from minigpt_cli.data.corpora.encodings import decode_file
from minigpt_cli.data.formats.base import Opened, Part, Reading


def read_text(file: Opened, how: Reading) -> Iterator[Part]:
    """Reads plain text, in pieces of about a megabyte."""
    for chunk, read in decode_file(file.path, file.encoding, how.newlines, file.compression):
        yield Part(chunk, False, read)
    yield Part("", True, 0)
