"""Lines of a file of any size, of which none may be too long for memory."""

from collections.abc import Iterator

from minigpt_cli.config.choices import Newlines
from minigpt_cli.data.corpora.encodings import decode_file
from minigpt_cli.data.formats import base
from minigpt_cli.data.formats.base import Opened, too_long


class Lines:
    """The lines of a file with their line breaks, and where in the file the reader is."""

    def __init__(self, file: Opened, newlines: Newlines) -> None:
        self._file, self._newlines = file, newlines
        self._read = 0
        self.number = 0
        """The line that was given last, from 1."""

    def __iter__(self) -> Iterator[str]:
        held: list[str] = []
        size = 0
        file = self._file
        for chunk, read in decode_file(file.path, file.encoding, self._newlines, file.compression):
            self._read += read
            *whole, rest = chunk.split("\n")
            for line in whole:
                self.number += 1
                self._check(size + len(line))
                yield "".join([*held, line, "\n"])
                held, size = [], 0
            held.append(rest)
            size += len(rest)
            self._check(size, self.number + 1)
        if last := "".join(held):
            self.number += 1
            yield last

    def _check(self, size: int, number: int = 0) -> None:
        if size > base.MOST_DOCUMENT:
            raise too_long(f"{self._file.path}:{number or self.number}")

    def take_read(self) -> int:
        """Bytes on disk that were read since this was asked last."""
        read, self._read = self._read, 0
        return read
