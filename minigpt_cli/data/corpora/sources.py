"""What a user named becomes an exact list of text files, and a list of what was left out and why.

Nothing is read that was not meant: hidden files, version control, environments, backups, trash, and
what minigpt downloaded or made itself are left out, and so is whatever is not plain text.
"""

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from minigpt_cli.data.corpora.encodings import (
    AUTO,
    check_byte_order_mark,
    detect_encoding,
    is_wide,
)
from minigpt_cli.data.corpora.file_kinds import HEAD, NotText, identify, markup_note
from minigpt_cli.data.corpora.folders import TEXT_SUFFIXES, LeftOut, is_plain, name_it, walk
from minigpt_cli.data.formats.columns import check_pyarrow
from minigpt_cli.data.formats.csv_table import split_header
from minigpt_cli.data.formats.names import (
    RECORDS,
    Compression,
    FormatName,
    compression_of,
    format_of,
    inner_suffix,
)
from minigpt_cli.data.formats.streams import open_stream
from minigpt_cli.errors import CorpusError, about, reraise_as
from minigpt_cli.language import _, mark, ngettext

Downloaded = Callable[[Path], bool]
"""Whether a file is a known corpus that minigpt downloaded."""
_EMPTY = "empty"
_PATTERN = re.compile(r"[*?[]")
# Files that say what a dataset is, and the names of its parts.
_CARDS = {"readme", "license", "licence", "notice", "citation", "changelog", "dataset_card"}
_SPLIT = re.compile(r"(train|training|validation|valid|val|dev|test|eval)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class TextFile:
    """One file of a text, and how to read it."""

    path: Path
    encoding: str = "utf-8"
    detected: bool = False
    """Whether the encoding was detected, rather than set."""
    note: str = ""
    """A note for the user about its contents."""
    format: FormatName = "text"
    compression: Compression = ""

    @property
    def status(self) -> os.stat_result:
        """The file's size and times on disk.

        Raises:
            CorpusError: it is gone.
        """
        with reraise_as(CorpusError, self.path, "read"):
            return self.path.stat()

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.status.st_size


@dataclass(frozen=True)
class Sources:
    """Text files in reading order, and what was left out."""

    files: tuple[TextFile, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()

    def __add__(self, other: "Sources") -> "Sources":
        return Sources(
            self.files + other.files, self.left_out + other.left_out, self.notes + other.notes
        )


def count_kinds(left_out: tuple[LeftOut, ...]) -> str:
    """`2 .pdf, 1 empty, 3 hidden folders`: the most frequent kinds first."""
    counts = Counter(item.kind for item in left_out).most_common()
    return _(", ").join(_counted(number, kind) for kind, number in counts)


def _counted(number: int, kind: str) -> str:
    if kind.startswith("."):
        return _("{number} {suffix}").format(number=number, suffix=kind)
    if kind == _EMPTY:
        return _("{number} empty").format(number=number)
    counted = ngettext("{number} {kind}", "{number} {kind}s", number)
    return counted.format(number=number, kind=_(kind))


@dataclass(frozen=True)
class Finding:
    """Which files of a folder are read, and as what."""

    include: tuple[str, ...] = ()
    """Patterns of names; by default plain text, or records if a folder holds only those."""
    as_text: bool = False
    """Whether files of records are read as plain text."""
    text_field: str = "text"
    """Field or column of a record that has its text."""
    failed: Callable[[Path, CorpusError], None] | None = None
    """Called with a file that cannot be read, which is then left out; None raises its error."""


def find_files(
    name: str,
    encoding: str,
    is_downloaded: Downloaded,
    missing: str,
    find: Finding = Finding(),
) -> Sources:
    """The text files of one file or folder, in the order of their names.

    Args:
        name: what the user named: a file, a folder, or a pattern such as `notes/*.md`.
        encoding: encoding of all files, or `auto` to detect that of each.
        is_downloaded: whether a file is a known corpus that minigpt downloaded.
        missing: what to say after the name when nothing has it.
        find: which files of a folder are read, and as what.

    Raises:
        CorpusError: no text was found, or something cannot be read.
    """
    if not name.strip():
        raise CorpusError(
            _(
                "data.corpus: an empty name; name a file, a folder (. for this one) or a known "
                "corpus"
            ),
            ("data.corpus",),
        )
    path = Path(name)
    look = _Look(encoding, is_downloaded, find)
    if is_pattern(name):
        return _matching(name, look)
    with reraise_as(CorpusError, name, "read", missing=missing):
        if not path.is_dir():
            path.stat()
            return look.one(path)
    return _in_folder(path, look)


def is_pattern(name: str) -> bool:
    """Whether this is a pattern of names, as `notes/*.md`, and not the name of something."""
    return _PATTERN.search(name) is not None and not os.path.lexists(name)


def fixed_part(name: str) -> str:
    """The part of a name before its first pattern: `notes` of `notes/*.md`; all of another name."""
    if not is_pattern(name):
        return name
    return str(Path(*takewhile(lambda part: not _PATTERN.search(part), Path(name).parts)))


def _matching(pattern: str, look: "_Look") -> Sources:
    """What a pattern matches; of the files, those that are not text are left out."""
    with reraise_as(CorpusError, pattern, "read"):
        names = glob.glob(pattern, recursive=True)  # noqa: PTH207 - takes any path
    left_out = []
    files = []
    for path in sorted(map(Path, names)):
        if path.is_file():
            files.append(path)
        elif not path.is_dir():
            left_out.append(LeftOut(path, mark("special file"), _("not a regular file")))
        elif "**" not in pattern:
            left_out.append(LeftOut(path, mark("folder"), _("name it to read it")))
    found = look.all(files) + Sources(left_out=tuple(left_out))
    if not found.files:
        problem = _("{pattern}: no text file matches this pattern in {here}")
        raise CorpusError(problem.format(pattern=pattern, here=Path.cwd()) + _also(found.left_out))
    return found


def _in_folder(path: Path, look: "_Look") -> Sources:
    """The plain text of a folder, or its records where it has no plain text of its own."""
    plain, records, left_out = [], [], []
    for item in walk(path, look.find.include):
        if isinstance(item, LeftOut):
            left_out.append(item)
        elif look.find.include or is_plain(item):
            plain.append(item)
        else:
            records.append(item)
    found = look.all(plain)
    if records and all(_is_card(file.path) for file in found.files) and not look.find.include:
        wanted, others = _one_split(records, path)
        reason = name_it(_("describes the dataset"))
        left_out += [LeftOut(card.path, mark("dataset card"), reason) for card in found.files]
        left_out += [*found.left_out, *others]
        found = look.all(wanted)
    else:
        left_out += map(_beside_text, records)
    left_out += found.left_out
    if not found.files:
        problem = _("{path}: no text files ({patterns}) in this folder").format(
            path=path, patterns=_(", ").join(look.find.include or TEXT_SUFFIXES)
        )
        fix = _("; {hint}").format(hint=_("name the files themselves"))
        raise CorpusError(problem + _also(left_out) + fix)
    return Sources(
        tuple(sorted(found.files, key=lambda file: file.path.parts)),
        tuple(sorted(left_out, key=lambda item: item.path.parts)),
    )


def _also(left_out: Iterable[LeftOut]) -> str:
    kinds = count_kinds(tuple(left_out))
    return _("; left out: {kinds}").format(kinds=kinds) if kinds else ""


def _is_card(path: Path) -> bool:
    return path.stem.lower() in _CARDS


def _beside_text(path: Path) -> LeftOut:
    fix = _("name the file itself, or its pattern in data.include")
    problem = (
        _("records, beside plain text; {fix}")
        if inner_suffix(path) in RECORDS
        else _("compressed, beside plain text; {fix}")
    )
    return LeftOut(path, path.suffix.lower(), problem.format(fix=fix))


def _one_split(paths: list[Path], root: Path) -> tuple[list[Path], list[LeftOut]]:
    """The training files, where files or folders have the names of a dataset's splits."""
    splits = {path: _split_of(path.relative_to(root)) for path in paths}
    if "train" not in splits.values():
        return paths, []
    others = {path: split for path, split in splits.items() if split not in ("train", "")}
    reason = _("the {split} split; name it itself, as for data.val_corpus")
    return [path for path in paths if path not in others], [
        LeftOut(path, mark("other split"), reason.format(split=split))
        for path, split in others.items()
    ]


def _split_of(path: Path) -> str:
    """`train`, `validation` ... where a file, or a folder it is in, is called so."""
    names = (match[1].lower() for part in path.parts if (match := _SPLIT.match(part)))
    return next(("train" if name == "training" else name for name in names), "")


@dataclass(frozen=True)
class _Look:
    """Looks into files, to see what they are."""

    encoding: str
    is_downloaded: Downloaded
    find: Finding

    def one(self, path: Path) -> Sources:
        """A file that was named itself, unless it cannot be read and errors are only noted."""
        try:
            return Sources((self.named(path),))
        except CorpusError as error:
            self._failed(path, error)
            return Sources()

    def named(self, path: Path) -> TextFile:
        """A file that was named itself.

        Raises:
            CorpusError: it is not text, or cannot be read.
        """
        if not path.is_file():
            raise CorpusError(
                _(
                    "{path}: not a regular file (a text is read more than once); save it to a "
                    "file first"
                ).format(path=path)
            )
        found = self._file(path, *_head(path))
        if isinstance(found, LeftOut):
            raise CorpusError(about(path, found.reason))
        return found

    def all(self, paths: Iterable[Path]) -> Sources:
        """Files of a folder by their contents, once their names are those of a text."""
        found = [self._look_into_or_fail(path) for path in paths]
        return Sources(
            tuple(item for item in found if isinstance(item, TextFile)),
            tuple(item for item in found if isinstance(item, LeftOut)),
        )

    def _look_into_or_fail(self, path: Path) -> TextFile | LeftOut | None:
        try:
            return self._look_into(path)
        except CorpusError as error:
            self._failed(path, error)
            return None

    def _failed(self, path: Path, error: CorpusError) -> None:
        """Notes that a file cannot be read, or raises its error where nobody takes notes."""
        if self.find.failed is None:
            raise error
        self.find.failed(path, error)

    def _look_into(self, path: Path) -> TextFile | LeftOut:
        head, compression = _head(path)
        if not head:
            return LeftOut(path, _EMPTY, _("is empty"))
        if self.is_downloaded(path):
            return LeftOut(
                path,
                mark("downloaded text"),
                _("downloaded by minigpt; name the corpus to read it too"),
            )
        found = self._file(path, head, compression)
        if isinstance(found, TextFile) and found.format == "csv" and not self.find.include:
            line = head.decode(found.encoding, "replace").removeprefix("\ufeff").split("\n")[0]
            _separator, names = split_header(line.rstrip("\r"), self.find.text_field)
            if self.find.text_field not in names:
                reason = _('no column "{name}": {others:.80}').format(
                    name=self.find.text_field, others=_(", ").join(names)
                )
                return LeftOut(path, ".csv", reason)
        return found

    def _file(self, path: Path, head: bytes, compression: Compression) -> TextFile | LeftOut:
        kind_of_file = "text" if self.find.as_text else format_of(path, head)
        if kind_of_file in ("parquet", "arrow") and not compression:
            check_pyarrow(path)
            return TextFile(path, format=kind_of_file)
        kind = identify(head, is_wide(self.encoding))
        if kind is not None:
            return LeftOut(path, kind.name, _not_plain(kind))
        note = markup_note(inner_suffix(path), head) if kind_of_file == "text" else ""
        if self.encoding == AUTO:
            encoding = detect_encoding(path, compression)
        else:
            check_byte_order_mark(path, head, self.encoding)
            encoding = self.encoding
        return TextFile(path, encoding, self.encoding == AUTO, note, kind_of_file, compression)


def _head(path: Path) -> tuple[bytes, Compression]:
    """The beginning of a file's contents, and how it is compressed."""
    with open_stream(path) as file:
        head = file.read(HEAD)
    compression = compression_of(head)
    if compression:
        with open_stream(path, compression) as file:
            head = file.read(HEAD)
    return head, compression


def reason(path: Path, error: CorpusError) -> str:
    """An error about a file, without the file's name."""
    return str(error).removeprefix(about(path, "")).removeprefix(f"{path}: ")


def _not_plain(kind: NotText) -> str:
    sounds_like_a_vowel = kind.name[0] in "aeioAEIO" or kind.name.startswith(("RTF", "HDF5", "xz"))
    text = (
        _("an {kind}, not plain text; {advice}")
        if sounds_like_a_vowel
        else _("a {kind}, not plain text; {advice}")
    )
    return text.format(kind=_(kind.name), advice=_(kind.advice))
