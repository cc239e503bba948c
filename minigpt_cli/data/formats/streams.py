"""The bytes of a file, decompressed piece by piece."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from minigpt_cli.data.formats.names import Compression
from minigpt_cli.errors import CorpusError, reraise_as
from minigpt_cli.io.regular import open_regular
from minigpt_cli.language import _


def install() -> str:
    """How to install what reads other formats."""
    return _("install it with: pip install 'minigpt-cli[corpora]'")


class ByteStream:
    """The contents of a file, read forward.

    Args:
        path: named in errors.
        file: the file on disk.
        contents: gives its contents; the same file unless it is compressed.
        failures: what a damaged compressed file raises.
    """

    def __init__(
        self,
        path: Path,
        file: IO[bytes],
        contents: IO[bytes] | gzip.GzipFile,
        failures: tuple[type[Exception], ...],
    ) -> None:
        self._path, self._file, self._contents, self._failures = path, file, contents, failures

    def read(self, most: int) -> bytes:
        """The next bytes of the contents, up to `most`; none at the end.

        Raises:
            CorpusError: the compressed file is damaged.
        """
        try:
            return self._contents.read(most)
        except self._failures as error:
            raise CorpusError(
                _(
                    "{path}: damaged compressed file ({error}); download or compress it again"
                ).format(path=self._path, error=error)
            ) from None

    def seek(self, place: int) -> None:
        """Goes to a place in the contents, from their beginning."""
        self._contents.seek(place)

    @property
    def position(self) -> int:
        """How far the file on disk has been read, in bytes."""
        return self._file.tell()


@contextmanager
def open_stream(path: Path, compression: Compression = "") -> Iterator[ByteStream]:
    """Opens a file for reading what is in it; no more than a piece of it is held in memory.

    Raises:
        CorpusError: the file cannot be read, or the package that decompresses it is missing.
    """
    with reraise_as(CorpusError, path, "read"), open_regular(path) as file:
        if compression == "gzip":
            with gzip.GzipFile(fileobj=file) as contents:
                failures = (gzip.BadGzipFile, EOFError, zlib.error)
                yield ByteStream(path, file, contents, failures)
        elif compression == "zstd":
            zstd = _zstd(path)
            with zstd.ZstdFile(file) as contents:
                yield ByteStream(path, file, contents, (zstd.ZstdError, EOFError))
        else:
            yield ByteStream(path, file, file, ())


def _zstd(path: Path) -> Any:
    try:
        from compression import zstd  # Python 3.14
    except ImportError:
        try:
            from backports import zstd
        except ImportError:
            problem = _("{path}: reading Zstandard files needs backports.zstd; {install}")
            raise CorpusError(problem.format(path=path, install=install())) from None
    return zstd
