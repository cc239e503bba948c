"""Known corpora, files and folders become text, read as a stream."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minigpt_cli.config.presets import shipped_folder
from minigpt_cli.data.download import downloaded, read_card
from minigpt_cli.data.progress import Progress, no_progress
from minigpt_cli.errors import CorpusError, reraise_as

TEXT_SUFFIXES = (".txt", ".md")
_CHUNK = 1 << 20
# A corpus names a folder. File systems allow 255 bytes, and a character takes up to 4.
_LONGEST_NAME = 60


@dataclass(frozen=True)
class Corpus:
    """Text files in reading order."""

    name: str
    files: tuple[Path, ...]
    encoding: str = "utf-8"

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.files)

    def chunks(self, progress: Progress = no_progress, stage: str = "Reading") -> Iterator[str]:
        """The text in pieces of about a megabyte, with each file starting on a new line.

        Line endings are kept as they are.

        Args:
            progress: called after each piece.
            stage: the name of the stage it is given.

        Raises:
            CorpusError: a file cannot be read, or is not in the encoding.
        """
        total, done = self.size, 0
        ends_line = True
        for path in self.files:
            if not ends_line:
                yield "\n"
                ends_line = True
            for chunk, length in _decode_file(path, self.encoding):
                done += length
                progress(stage, done, total)
                if chunk:
                    ends_line = chunk.endswith("\n")
                    yield chunk


def known_corpora() -> dict[str, Path]:
    """The dataset cards that ship with the package, by the name of their corpus."""
    return {path.stem: path for path in shipped_folder("data").glob("*.toml")}


def open_corpus(
    sources: tuple[str, ...],
    data_dir: Path,
    encoding: str = "utf-8",
    progress: Progress = no_progress,
) -> Corpus:
    """Finds or downloads the text that `sources` name.

    Args:
        sources: known corpora, files or folders.
        data_dir: where downloaded corpora are kept.
        encoding: encoding of all files; downloaded ones are UTF-8.
        progress: called while a corpus is downloaded.

    Raises:
        CorpusError: a source is missing, empty or cannot be downloaded.
    """
    try:
        "".encode(encoding)  # unlike codecs.lookup, rejects hex and others that do not give text
    except (LookupError, ValueError):
        raise CorpusError(
            f"data.encoding = {encoding}: unknown encoding; common ones: utf-8, gb18030, cp1252, "
            "utf-16",
            settings=("data.encoding",),
        ) from None
    cards = known_corpora()
    known = [source for source in sources if source in cards]
    if known and codecs.lookup(encoding).name != "utf-8":
        raise CorpusError(
            f"data.encoding = {encoding}: {known[0]} is UTF-8, and all texts of a run share one "
            "encoding; convert your files to UTF-8"
        )
    files: list[Path] = []
    for source in sources:
        if source in cards:
            files.append(downloaded(read_card(cards[source]), data_dir, progress))
        else:
            files += _own_files(source, sorted(cards))
    names = [source if source in cards else Path(source).resolve().stem for source in sources]
    name = "+".join(names)
    if len(name) > _LONGEST_NAME and len(names) > 1:
        name = f"{names[0][:_LONGEST_NAME]}+{len(names) - 1}"
    return Corpus(name, tuple(files), encoding)


def _own_files(source: str, known: list[str]) -> list[Path]:
    path = Path(source)
    try:
        if path.is_dir():
            next(path.iterdir(), None)  # raises where rglob would find nothing
            texts = (p for p in path.rglob("*") if p.suffix.lower() in TEXT_SUFFIXES)
            files = sorted(p for p in texts if p.is_file())
            if not files:
                raise CorpusError(
                    f"{source}: no {' or '.join(TEXT_SUFFIXES)} file in this folder; "
                    "pass the files themselves"
                )
            return files
        if path.exists() and not path.is_file():
            raise CorpusError(
                f"{source}: not a regular file (a text is read more than once); save it to a file "
                "first"
            )
        with path.open("rb"):
            return [path]
    except FileNotFoundError:
        raise CorpusError(
            f"{source}: no such file or folder in {Path.cwd()}, nor a known corpus "
            f"({', '.join(known)})"
        ) from None
    except (OSError, ValueError) as error:  # also a zero byte, which no name can have
        reason = getattr(error, "strerror", None) or error
        raise CorpusError(f"{source}: cannot be read ({reason})") from None


def _decode_file(path: Path, encoding: str) -> Iterator[tuple[str, int]]:
    """Pieces of one file, each with its length in bytes."""
    codec = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    decoder = codecs.getincrementaldecoder(codec)()
    consumed = 0  # bytes read before this piece
    with reraise_as(CorpusError, path, "read"), path.open("rb") as file:
        while True:
            data = file.read(_CHUNK)
            consumed += len(data)
            try:
                text = decoder.decode(data, final=not data)
                text.encode()  # UTF-7 and others can encode half characters
            except UnicodeError as error:
                raise _wrong_encoding(path, encoding, consumed, error) from None
            yield text, len(data)
            if not data:
                return


def _wrong_encoding(path: Path, encoding: str, consumed: int, error: UnicodeError) -> CorpusError:
    reason = str(error)  # a missing byte order mark has no offset
    if isinstance(error, UnicodeDecodeError):
        # The decoder's input starts with bytes held back from before, perhaps without the byte
        # order mark, but it ends where the file has been read to.
        offset = consumed - len(error.object) + error.start
        reason = f"byte {offset} (0x{error.object[error.start]:02x}) is not part of any character"
    return CorpusError(
        f"{path}: not {encoding}: {reason}; if the file has another encoding, set data.encoding "
        "to gb18030, cp1252, utf-16 …",
        settings=("data.encoding",),
    )
