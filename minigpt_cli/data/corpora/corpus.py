"""Known corpora, files and folders become text, read as a stream."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import and_
from pathlib import Path
from typing import NamedTuple

from numpy import uint32
from numpy.typing import NDArray

from minigpt_cli.config.choices import Documents, Newlines
from minigpt_cli.config.presets import shipped_folder
from minigpt_cli.data.corpora.download import downloaded, is_downloaded, read_card
from minigpt_cli.data.corpora.encodings import check_encoding
from minigpt_cli.data.corpora.folders import LeftOut
from minigpt_cli.data.corpora.sources import Finding, Sources, TextFile, find_files, fixed_part
from minigpt_cli.data.formats.base import Reading
from minigpt_cli.data.formats.names import COMPRESSED
from minigpt_cli.data.formats.readers import read_parts
from minigpt_cli.data.progress import Progress, no_progress
from minigpt_cli.language import _, mark
from minigpt_cli.tokenizer.base import Job, Tokenizer

_READING = mark("Reading")
# A corpus names a folder. File systems allow 255 bytes, and a character takes up to 4.
_LONGEST_NAME = 60


class Piece(NamedTuple):
    """A part of a text, up to about a megabyte and never empty."""

    file: int
    """Index of the file that it belongs to."""
    text: str
    ends_document: bool = False
    """Whether a document ends here; only in a text that has documents."""


@dataclass(frozen=True)
class Corpus:
    """A text: files in reading order, and what else was found where they are."""

    name: str
    files: tuple[TextFile, ...]
    newlines: Newlines = "lf"
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    documents: Documents = "auto"
    text_field: str = "text"

    @property
    def has_documents(self) -> bool:
        """Whether the text is made of documents, which an end-of-text token keeps apart."""
        if self.documents == "auto":
            return any(file.format != "text" for file in self.files)
        return self.documents == "files"

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.size for file in self.files)

    @property
    def permissions(self) -> int:
        """The file permissions that all files have in common."""
        return reduce(and_, (file.status.st_mode for file in self.files), 0o777)

    def chunks(self, progress: Progress = no_progress, stage: str = _READING) -> Iterator[str]:
        """The text alone, with each file and each document starting on a new line.

        Args:
            progress: called after each piece.
            stage: the name of the stage it is given.

        Raises:
            CorpusError: a file cannot be read, or is not in its encoding.
        """
        return joined(self.pieces(progress, stage))

    def pieces(self, progress: Progress = no_progress, stage: str = _READING) -> Iterator[Piece]:
        """The text, and where its documents end.

        Without documents, a line break is added to a file that does not end with one, before the
        next. Documents are given as they are, and those without text are left out.

        Args:
            progress: called with the bytes on disk read so far, and of all.
            stage: the name of the stage it is given.

        Raises:
            CorpusError: a file cannot be read, or is not in its encoding.
        """
        total, done = self.size, 0
        separate, missing_break = self.has_documents, False
        how = Reading(self.newlines, self.text_field)
        held: Piece | None = None  # whether it ends its document is known when the next is read
        for index, file in enumerate(self.files):
            if missing_break:
                yield Piece(index - 1, "\n")
                missing_break = False
            for text, ends, read in read_parts(file, file.format, how):
                if read:
                    done += read
                    progress(stage, done, total)
                if text:
                    if held is not None:
                        yield held
                    elif missing_break:
                        yield Piece(index, "\n")
                    held = Piece(index, text)
                if ends and held is not None:
                    missing_break = not (separate or held.text.endswith("\n"))
                    yield held._replace(ends_document=separate)
                    held = None


def joined(pieces: Iterable[Piece]) -> Iterator[str]:
    """The text of pieces, with each document starting on a new line."""
    separator = ""
    for piece in pieces:
        yield separator + piece.text
        separator = "\n" if piece.ends_document and not piece.text.endswith("\n") else ""


def encoded(pieces: Iterable[Piece], tokenizer: Tokenizer) -> Iterator[NDArray[uint32]]:
    """The ids of pieces of text, with the end-of-text token after each document.

    Where the vocabulary has none, documents start on a new line instead.

    Raises:
        TokenizerError: the text contains something that the vocabulary cannot encode.
    """
    if tokenizer.end_of_text is None:
        return tokenizer.encode_chunks(joined(pieces))
    return tokenizer.encode_documents((piece.text, piece.ends_document) for piece in pieces)


def jobs_of(pieces: Iterable[Piece], tokenizer: Tokenizer) -> Iterator[Job]:
    """The work of `encoded`, in shares that several processes may take."""
    if tokenizer.end_of_text is None:
        return tokenizer.jobs(joined(pieces))
    return tokenizer.document_jobs((piece.text, piece.ends_document) for piece in pieces)


def known_corpora() -> dict[str, Path]:
    """The dataset cards that ship with the package, by the name of their corpus."""
    return {path.stem: path for path in shipped_folder("data").glob("*.toml")}


def open_corpus(
    sources: tuple[str, ...],
    data_dir: Path,
    encoding: str = "utf-8",
    newlines: Newlines = "lf",
    progress: Progress = no_progress,
    documents: Documents = "auto",
    find: Finding = Finding(),  # noqa: B008 - frozen
) -> Corpus:
    """Finds or downloads the text that `sources` name.

    Args:
        sources: known corpora, files or folders.
        data_dir: where downloaded corpora are kept.
        encoding: encoding of the user's files, or `auto`; downloaded ones are UTF-8.
        newlines: whether line endings are read as LF, or kept.
        progress: called while a corpus is downloaded.
        documents: what is kept apart by an end-of-text token.
        find: which files of a folder are read, and as what.

    Raises:
        CorpusError: a source is missing, empty or cannot be downloaded.
    """
    check_encoding(encoding)
    cards = {name: read_card(path) for name, path in sorted(known_corpora().items())}

    def is_ours(path: Path) -> bool:
        return any(is_downloaded(path, card, data_dir) for card in cards.values())

    missing = _("no such file or folder in {here}, nor a known corpus ({corpora})").format(
        here=Path.cwd(), corpora=_(", ").join(cards)
    )
    found = Sources()
    for source in sources:
        if source in cards:
            path = downloaded(cards[source], data_dir, progress)
            found += Sources((TextFile(path),), notes=_namesakes(source, data_dir))
        else:
            found += find_files(source, encoding, is_ours, missing, find)
    names = [source if source in cards else _stem(source) for source in sources]
    name = "+".join(names) or "text"
    if len(name) > _LONGEST_NAME and len(names) > 1:
        name = f"{names[0][:_LONGEST_NAME]}+{len(names) - 1}"
    return Corpus(
        name, found.files, newlines, found.left_out, found.notes, documents, find.text_field
    )


def _stem(source: str) -> str:
    """What a text is called after: its file or folder, without suffixes and patterns."""
    path = Path(fixed_part(source)).resolve()
    return Path(path.stem).stem if path.suffix.lower() in COMPRESSED else path.stem


def _namesakes(name: str, data_dir: Path) -> tuple[str, ...]:
    """Says so where a file or folder of the user has the name of a known corpus."""
    own = Path(name)
    if not own.exists() or own.resolve() == (data_dir / name).resolve():
        return ()
    note = (
        _("{name} is the known corpus; to read your folder of that name, write ./{name}")
        if own.is_dir()
        else _("{name} is the known corpus; to read your file of that name, write ./{name}")
    )
    return (note.format(name=name),)
