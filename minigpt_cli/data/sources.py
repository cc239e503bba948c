"""What a user named becomes an exact list of text files, and a list of what was left out and why.

Nothing is read that was not meant: hidden files, version control, environments, backups, trash, and
what minigpt downloaded or made itself are left out, and so is whatever is not plain text.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from minigpt_cli.data.encodings import (
    AUTO,
    check_byte_order_mark,
    detect_encoding,
    is_wide,
)
from minigpt_cli.data.file_kinds import HEAD, identify, markup_note
from minigpt_cli.errors import CorpusError, reraise_as
from minigpt_cli.io.regular import open_regular

TEXT_SUFFIXES = (".txt", ".md", ".markdown", ".text", ".rst", ".org", ".tex")
"""Files that are read from a folder."""
_OTHER_TEXT = (".html", ".htm", ".xml", ".json", ".jsonl", ".csv", ".tsv", ".srt", ".vtt", ".log")
_DOCUMENTS = (".docx", ".doc", ".odt", ".rtf", ".pdf", ".epub", ".mobi", ".pages")
_VERSION_CONTROL = {".git", ".hg", ".svn", ".bzr", ".jj", "cvs", "_darcs"}
_PACKAGES = {"node_modules", "__pycache__", "site-packages", "dist-packages"}
_TRASH = {"trash", "$recycle.bin", "recycler", "system volume information", "lost+found"}
_BACKUPS = {".bak", ".backup", ".orig", ".rej", ".swp", ".swo", ".tmp"}
_NAME_IT = "name the file itself to read it"


@dataclass(frozen=True)
class TextFile:
    """One file of a text, and how to read it."""

    path: Path
    encoding: str = "utf-8"
    detected: bool = False
    """Whether the encoding was detected, rather than set."""
    note: str = ""
    """A note for the user about its contents."""

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
class LeftOut:
    """A file or folder that was found and not read."""

    path: Path
    kind: str
    """A few words, by which these are counted."""
    reason: str
    """Why, and how to have it read where that makes sense."""


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
    return ", ".join(f"{n} {kind}{'s' if n > 1 and ' ' in kind else ''}" for kind, n in counts)


def find_files(
    name: str, encoding: str, is_downloaded: Callable[[Path], bool], missing: str
) -> Sources:
    """The text files of one file or folder, in the order of their names.

    Args:
        name: what the user named.
        encoding: encoding of all files, or `auto` to detect that of each.
        is_downloaded: whether a file is a known corpus that minigpt downloaded.
        missing: what to say after the name when nothing has it.

    Raises:
        CorpusError: no text was found, or something cannot be read.
    """
    if not name.strip():
        raise CorpusError(
            "data.corpus: an empty name; name a file, a folder (. for this one) or a known corpus",
            ("data.corpus",),
        )
    path = Path(name)
    with reraise_as(CorpusError, name, "read", missing=missing):
        if not path.is_dir():
            path.stat()
            return Sources((_named_file(path, encoding),))
    files: list[TextFile] = []
    left_out: list[LeftOut] = []
    for found in _walk(path):
        item = found if isinstance(found, LeftOut) else _look_into(found, encoding, is_downloaded)
        if isinstance(item, LeftOut):
            left_out.append(item)
        else:
            files.append(item)
    left_out.sort(key=lambda item: item.path.parts)
    if not files:
        raise CorpusError(
            f"{name}: no text files ({', '.join(TEXT_SUFFIXES)}) in this folder"
            + (f"; left out: {count_kinds(tuple(left_out))}" if left_out else "")
            + "; name the files themselves"
        )
    files.sort(key=lambda file: file.path.parts)
    return Sources(tuple(files), tuple(left_out))


def _named_file(path: Path, encoding: str) -> TextFile:
    if not path.is_file():
        raise CorpusError(
            f"{path}: not a regular file (a text is read more than once); save it to a file first"
        )
    head = _head(path)
    kind = identify(head, is_wide(encoding))
    if kind is not None:
        raise CorpusError(f"{path}: {_a(kind.name)}, not plain text; {kind.advice}")
    return _text_file(path, head, encoding)


def _text_file(path: Path, head: bytes, encoding: str) -> TextFile:
    note = markup_note(path.suffix.lower(), head)
    if encoding == AUTO:
        return TextFile(path, detect_encoding(path), detected=True, note=note)
    check_byte_order_mark(path, head, encoding)
    return TextFile(path, encoding, note=note)


def _head(path: Path) -> bytes:
    with reraise_as(CorpusError, path, "read"), open_regular(path) as file:
        return file.read(HEAD)


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiouAEIOU' or noun.startswith('RTF') else 'a'} {noun}"


def _look_into(
    path: Path, encoding: str, is_downloaded: Callable[[Path], bool]
) -> TextFile | LeftOut:
    """A file of a folder by its contents, once its name is that of a text."""
    head = _head(path)
    if not head:
        return LeftOut(path, "empty", "is empty")
    if is_downloaded(path):
        return LeftOut(
            path, "downloaded text", "downloaded by minigpt; name the corpus to read it too"
        )
    kind = identify(head, is_wide(encoding))
    if kind is not None:
        return LeftOut(path, kind.name, f"{_a(kind.name)}; {kind.advice}")
    return _text_file(path, head, encoding)


def _walk(root: Path) -> Iterator[Path | LeftOut]:
    """The files below a folder whose names are those of texts, and everything else."""
    pending, top = [root], root.resolve()
    while pending:
        folder = pending.pop()
        hint = "make it readable, or name the files to read"
        with reraise_as(CorpusError, folder, "read", hint=hint), os.scandir(folder) as entries:
            for entry in list(entries):
                path = Path(entry.path)
                if entry.is_symlink():
                    yield _link(path, top)
                elif entry.is_dir(follow_symlinks=False):
                    reason = _not_walked(path)
                    if reason is None:
                        pending.append(path)
                    else:
                        yield reason
                elif not entry.is_file(follow_symlinks=False):
                    yield LeftOut(path, "special file", "not a regular file")
                else:
                    yield _not_by_name(path) or path


def _link(path: Path, top: Path) -> Path | LeftOut:
    """A link is followed only to a file that nothing else would have read, within the folder."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):  # a link to itself
        return LeftOut(path, "broken link", "leads nowhere that can be read")
    if target.is_dir():
        return LeftOut(path, "linked folder", "a link; name the folder it leads to, to read it")
    if not target.is_relative_to(top):
        return LeftOut(path, "linked file", f"leads out of the folder; {_NAME_IT}")
    if not target.is_file():
        return LeftOut(path, "special file", "not a regular file")
    folders = [top.joinpath(*target.relative_to(top).parts[: depth + 1])
               for depth in range(len(target.relative_to(top).parts) - 1)]  # fmt: skip
    if any(_not_walked(folder) for folder in folders) or target.name.startswith("."):
        return LeftOut(path, "linked file", f"leads to a file that is left out; {_NAME_IT}")
    if _not_by_name(target) is None:
        return LeftOut(path, "linked file", f"leads to {target.name}, which is read already")
    return _not_by_name(path) or path


def _not_walked(path: Path) -> LeftOut | None:
    """Why a folder within the named one is not looked into."""
    name = path.name.lower()
    if name in _VERSION_CONTROL:
        return LeftOut(path, "version control folder", "belongs to version control")
    if name in _TRASH or name.startswith(".trash"):
        return LeftOut(path, "trash folder", "holds deleted files")
    if name == "__macosx":
        return LeftOut(path, "resource fork folder", "left by macOS; it holds no text")
    if name in _PACKAGES:
        return LeftOut(path, "package folder", "holds installed packages")
    if _has(path, "pyvenv.cfg") or _has(path, "conda-meta"):
        return LeftOut(path, "virtual environment", "holds installed packages")
    if name.startswith("."):
        return LeftOut(path, "hidden folder", "is hidden; name it to read it")
    if _has(path, "tokenizer.json") and _has(path, "train.bin"):
        return LeftOut(path, "prepared text", "made by minigpt")
    if any(_has(path, name) for name in ("checkpoint.safetensors", "state.safetensors")) or (
        _has(path, "metrics.jsonl") and _has(path, "config.toml")
    ):
        return LeftOut(path, "minigpt run", "made by minigpt")
    return None


def _has(folder: Path, name: str) -> bool:
    return os.path.lexists(folder / name)


def _not_by_name(path: Path) -> LeftOut | None:
    """Why a file within the named folder is not even opened."""
    name, suffix = path.name.lower(), path.suffix.lower()
    if name.startswith("._"):
        return LeftOut(path, "resource fork", "left by macOS; it holds no text")
    if name.startswith("."):
        return LeftOut(path, "hidden file", f"is hidden; {_NAME_IT}")
    if (
        name.endswith("~")
        or name.startswith("~$")
        or (name.startswith("#") and name.endswith("#"))
        or _BACKUPS & {suffix, Path(path.stem).suffix.lower()}
    ):
        return LeftOut(path, "backup file", f"a backup or an editor's file; {_NAME_IT}")
    if suffix in TEXT_SUFFIXES:
        return None
    if suffix in _OTHER_TEXT:
        return LeftOut(path, suffix, f"its markup or data would be learned too; {_NAME_IT}")
    if suffix in _DOCUMENTS:
        return LeftOut(path, suffix, "not plain text; save it as plain text (.txt) first")
    if suffix == ".lock":
        return LeftOut(path, "lock file", "made by a program that was writing here")
    plain = suffix[1:].isalnum() and len(suffix) <= 10
    return LeftOut(
        path, suffix if plain else "other file", f"not one of {', '.join(TEXT_SUFFIXES)}"
    )
