"""What is in a folder: files with the names of texts, and why the others are left out."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from minigpt_cli.data.formats.names import COMPRESSED, RECORDS, inner_suffix
from minigpt_cli.errors import CorpusError, reraise_as
from minigpt_cli.language import _, mark

TEXT_SUFFIXES = (".txt", ".md", ".markdown", ".text", ".rst", ".org", ".tex")
"""Plain text that is read from a folder."""
_OTHER_TEXT = (".html", ".htm", ".xml", ".json", ".srt", ".vtt", ".log")
_DOCUMENTS = (".docx", ".doc", ".odt", ".rtf", ".pdf", ".epub", ".mobi", ".pages")
_VERSION_CONTROL = {".git", ".hg", ".svn", ".bzr", ".jj", "cvs", "_darcs"}
_PACKAGES = {"node_modules", "__pycache__", "site-packages", "dist-packages"}
_TRASH = {"trash", "$recycle.bin", "recycler", "system volume information", "lost+found"}
_BACKUPS = {".bak", ".backup", ".orig", ".rej", ".swp", ".swo", ".tmp"}


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that was found and not read."""

    path: Path
    kind: str
    """A suffix, or a few words, which are translated where they are counted."""
    reason: str
    """Why, and how to have it read where that makes sense."""


def name_it(problem: str) -> str:
    """A reason to leave a file out, with how to have it read."""
    return _("{problem}; name the file itself to read it").format(problem=problem)


def is_plain(path: Path) -> bool:
    """Whether this is the name of plain text that is not compressed."""
    return path.suffix.lower() in TEXT_SUFFIXES


def is_text_name(path: Path) -> bool:
    """Whether this is the name of text in any format, compressed or not."""
    return inner_suffix(path) in (*TEXT_SUFFIXES, *RECORDS)


def walk(root: Path, include: tuple[str, ...] = ()) -> Iterator[Path | LeftOut]:
    """The files below a folder whose names are those of texts, and everything else.

    Args:
        root: the folder.
        include: patterns of names, or of paths from `root`; only what matches one is read.

    Raises:
        CorpusError: a folder cannot be read.
    """
    pending, top = [root], root.resolve()
    while pending:
        folder = pending.pop()
        hint = _("make it readable, or name the files to read")
        with reraise_as(CorpusError, folder, "read", hint=hint), os.scandir(folder) as entries:
            for entry in list(entries):
                path = Path(entry.path)
                if entry.is_symlink():
                    yield _link(path, top, root, include)
                elif entry.is_dir(follow_symlinks=False):
                    reason = _not_walked(path)
                    if reason is None:
                        pending.append(path)
                    else:
                        yield reason
                elif not entry.is_file(follow_symlinks=False):
                    yield LeftOut(path, mark("special file"), _("not a regular file"))
                else:
                    yield _not_by_name(path, root, include) or path


def _link(path: Path, top: Path, root: Path, include: tuple[str, ...]) -> Path | LeftOut:
    """A link is followed only to a file that nothing else would have read, within the folder."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):  # a link to itself
        return LeftOut(path, mark("broken link"), _("leads nowhere that can be read"))
    if target.is_dir():
        return LeftOut(
            path, mark("linked folder"), _("a link; name the folder it leads to, to read it")
        )
    if _is_blob(target, top):
        return _not_by_name(path, root, include) or path
    if not target.is_relative_to(top):
        return LeftOut(path, mark("linked file"), name_it(_("leads out of the folder")))
    if not target.is_file():
        return LeftOut(path, mark("special file"), _("not a regular file"))
    folders = [top.joinpath(*target.relative_to(top).parts[: depth + 1])
               for depth in range(len(target.relative_to(top).parts) - 1)]  # fmt: skip
    if any(_not_walked(folder) for folder in folders) or target.name.startswith("."):
        return LeftOut(path, mark("linked file"), name_it(_("leads to a file that is left out")))
    if _not_by_name(target, top, include) is None:
        return LeftOut(
            path,
            mark("linked file"),
            _("leads to {name}, which is read already").format(name=target.name),
        )
    return _not_by_name(path, root, include) or path


def _is_blob(target: Path, top: Path) -> bool:
    """Whether a link out of a snapshot in Hugging Face's cache leads to the file that it is of."""
    return top.parent.name == "snapshots" and target.parent == top.parents[1] / "blobs"


def _not_walked(path: Path) -> LeftOut | None:
    """Why a folder within the named one is not looked into."""
    name = path.name.lower()
    if name in _VERSION_CONTROL:
        return LeftOut(path, mark("version control folder"), _("belongs to version control"))
    if name in _TRASH or name.startswith(".trash"):
        return LeftOut(path, mark("trash folder"), _("holds deleted files"))
    if name == "__macosx":
        return LeftOut(path, mark("resource fork folder"), _("left by macOS; it holds no text"))
    if name in _PACKAGES:
        return LeftOut(path, mark("package folder"), _("holds installed packages"))
    if _has(path, "pyvenv.cfg") or _has(path, "conda-meta"):
        return LeftOut(path, mark("virtual environment"), _("holds installed packages"))
    if name.startswith("."):
        return LeftOut(path, mark("hidden folder"), _("is hidden; name it to read it"))
    if _has(path, "tokenizer.json") and (_has(path, "train.bin") or _has(path, "shards.jsonl")):
        return LeftOut(path, mark("prepared text"), _("made by minigpt"))
    if any(_has(path, name) for name in ("checkpoint.safetensors", "state.safetensors")) or (
        _has(path, "metrics.jsonl") and _has(path, "config.toml")
    ):
        return LeftOut(path, mark("minigpt run"), _("made by minigpt"))
    return None


def _has(folder: Path, name: str) -> bool:
    return os.path.lexists(folder / name)


def _not_by_name(path: Path, root: Path, include: tuple[str, ...]) -> LeftOut | None:
    """Why a file within the named folder is not even opened."""
    name, suffix = path.name.lower(), path.suffix.lower()
    if name.startswith("._"):
        return LeftOut(path, mark("resource fork"), _("left by macOS; it holds no text"))
    if name.startswith("."):
        return LeftOut(path, mark("hidden file"), name_it(_("is hidden")))
    if (
        name.endswith("~")
        or name.startswith("~$")
        or (name.startswith("#") and name.endswith("#"))
        or _BACKUPS & {suffix, Path(path.stem).suffix.lower()}
    ):
        return LeftOut(path, mark("backup file"), name_it(_("a backup or an editor's file")))
    plain = suffix[1:].isalnum() and len(suffix) <= 10
    kind = suffix if plain else mark("other file")
    if include:
        within = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        if any(fnmatchcase(path.name, each) or fnmatchcase(within, each) for each in include):
            return None
        return LeftOut(path, kind, _not_one_of(include))
    if is_text_name(path):
        return _not_data(path) if suffix == ".arrow" else None
    if suffix in _OTHER_TEXT:
        return LeftOut(path, suffix, name_it(_("its markup or data would be learned too")))
    if suffix in _DOCUMENTS:
        return LeftOut(path, suffix, _("not plain text; save it as plain text (.txt) first"))
    if suffix == ".lock":
        return LeftOut(path, mark("lock file"), _("made by a program that was writing here"))
    if suffix in COMPRESSED:
        return LeftOut(path, kind, name_it(_("its name does not say what is compressed")))
    return LeftOut(path, kind, _not_one_of(TEXT_SUFFIXES))


def _not_one_of(patterns: tuple[str, ...]) -> str:
    return _("not one of {patterns}").format(patterns=_(", ").join(patterns))


def _not_data(path: Path) -> LeftOut | None:
    """Why an Arrow file is not one of a saved dataset."""
    if path.name.startswith(("cache-", "indices", "tmp")):
        return LeftOut(path, mark("cache file"), name_it(_("made by `datasets` while it worked")))
    return None
