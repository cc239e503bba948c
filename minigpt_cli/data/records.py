"""What was found out about files, believed until their size, times or inode change.

A text of gigabytes is not read again at every start, nor are the tokens made of it. As in git's
index, a file's status stands for its contents: whatever writes to a file changes the time at which
its status changed (`ctime`), which no program can set. That time is only as fine as the file
system's clock, so a file that changed too shortly before it was read is read again next time.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter

from minigpt_cli import __version__
from minigpt_cli.data.corpora.corpus import Corpus
from minigpt_cli.data.metadata import digest_of
from minigpt_cli.errors import CorpusError, reraise_as
from minigpt_cli.io.atomic import replacing, sweep
from minigpt_cli.io.permissions import restrict
from minigpt_cli.io.regular import read_bounded
from minigpt_cli.io.strict_json import read_json

RECORD = "record.json"
"""Beside the prepared files: what vouches for them and for the texts they were made of."""
_MOST_RECORD = 1 << 28
_MOST_TEXTS = 8
"""The same text may be found in several places, or written in several encodings."""
# File systems count time in steps of up to 10 ms, and old ones of 1 or 2 s: then it is a whole
# second. A file must have been at rest for longer than a step before it is read.
_STEP_NS, _COARSE_STEP_NS = 100_000_000, 2_100_000_000
_ABANDONED_SECONDS = 60.0
_HAS_CHANGE_TIME = os.name == "posix"  # on Windows, it is the time of creation
_LEFT_OUT = {"left_out", "notes", "note", "detected"}
"""What a corpus says about its files that does not change its text."""

Stamp = tuple[int, int, int, int]
"""Size in bytes, times of the last change of contents and of status in ns, and inode."""


@dataclass(frozen=True)
class TextRecord:
    """The result of reading one text, as in `Reading`."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]
    file_characters: tuple[Annotated[int, Field(ge=0)], ...]
    alphabet: str
    documents: Annotated[int, Field(ge=0)]
    document_ends: tuple[Annotated[int, Field(ge=0)], ...]


@dataclass(frozen=True)
class Record:
    """What was found out about the files of one prepared dataset."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    texts: dict[str, tuple[TextRecord, ...]] = field(default_factory=dict)
    """By digest of the files' names and status: a text, and the one for validation if separate."""
    prepared: dict[str, Stamp] = field(default_factory=dict)
    """By name: the status of each file of tokens whose contents were verified."""

    def with_texts(self, key: str, texts: tuple[TextRecord, ...]) -> "Record":
        """The same record with one more text; the oldest is forgotten."""
        kept = [(name, value) for name, value in self.texts.items() if name != key]
        return replace(self, texts=dict([*kept, (key, texts)][-_MOST_TEXTS:]))


_SCHEMA = TypeAdapter(Record)


def read_record(folder: Path) -> Record:
    """The record of a prepared folder; an empty one where there is none, or it is damaged."""
    try:
        stored = read_bounded(folder / RECORD, _MOST_RECORD).decode()
        read_json(stored)
        return _SCHEMA.validate_json(stored)
    except (OSError, ValueError):
        return Record()


def write_record(folder: Path, record: Record, permissions: int) -> None:
    """Replaces the record of a prepared folder, where the folder may be written.

    Args:
        folder: of the prepared dataset.
        record: what is known now.
        permissions: of the text.
    """
    with suppress(OSError):  # without it, everything is only read again
        sweep(folder, RECORD, older_than=_ABANDONED_SECONDS)
        with replacing(folder / RECORD) as temporary:
            temporary.write_text(to_json(record), encoding="utf-8")
        restrict(folder / RECORD, permissions)


def to_json(record: Record) -> str:
    """What `read_record` reads."""
    return json.dumps(asdict(record))


def stamp(path: Path) -> Stamp:
    """The status of a file.

    Raises:
        OSError: it is gone.
    """
    status = path.stat()
    changed = status.st_ctime_ns if _HAS_CHANGE_TIME else status.st_mtime_ns
    return status.st_size, status.st_mtime_ns, changed, status.st_ino


def is_settled(stamp: Stamp, now_ns: int) -> bool:
    """Whether a file whose contents are read from `now_ns` on cannot change without a new status.

    Args:
        stamp: the file's status, taken before it is read.
        now_ns: the time at which reading begins, in ns since the epoch.
    """
    changed = stamp[2]
    step = _STEP_NS if changed % 1_000_000_000 else _COARSE_STEP_NS
    return changed + step < now_ns


@dataclass(frozen=True)
class Sources:
    """The status of all files of a text, taken at one time."""

    key: str
    """Digest of their names, of how each is read, and of their status."""
    settled: bool
    """Whether the key stands for their contents, read from now on."""

    @classmethod
    def of(cls, corpora: Iterable[Corpus]) -> "Sources":
        """Looks at every file of some texts.

        Raises:
            CorpusError: a file is gone.
        """
        now, settled = time.time_ns(), True
        digest = hashlib.sha256(
            # Another version may read the same files otherwise.
            json.dumps([__version__, sys.version_info[:2], _HAS_CHANGE_TIME]).encode()
        )
        for corpus in corpora:
            settings = _settings(corpus)
            del settings["files"]
            digest.update(json.dumps(["text", settings], sort_keys=True).encode())
            for file in corpus.files:
                with reraise_as(CorpusError, file.path, "read"):
                    status = stamp(file.path)
                settled = settled and is_settled(status, now)
                settings = _settings(file) | {"path": os.path.realpath(file.path)}
                digest.update(json.dumps([settings, status], sort_keys=True).encode())
        return cls(digest.hexdigest(), settled)


def _settings(found: object) -> dict[str, str]:
    """Every field of a dataclass that may decide how a text is read."""
    return {
        each.name: repr(getattr(found, each.name))
        for each in fields(found)  # type: ignore[arg-type]
        if each.name not in _LEFT_OUT
    }


def are_unchanged(folder: Path, names: Iterable[str], known: Mapping[str, Stamp]) -> bool:
    """Whether files have the status that they had when their contents were verified.

    Raises:
        OSError: a file is gone.
    """
    return all(known.get(name) == stamp(folder / name) for name in names)


@dataclass(frozen=True)
class Verified:
    """Files whose contents were just read."""

    sha256: str
    """Digest of one after the other."""
    stamps: dict[str, Stamp]
    """The status of those that cannot change without a new one."""


def verified(folder: Path, names: Iterable[str]) -> Verified:
    """Reads files for their digest.

    Raises:
        OSError: a file cannot be read.
    """
    names, now = tuple(names), time.time_ns()
    before = {name: stamp(folder / name) for name in names}
    digest = digest_of(folder, names)
    after = {name: stamp(folder / name) for name in names}
    settled = {
        name: status
        for name, status in before.items()
        if status == after[name] and is_settled(status, now)
    }
    return Verified(digest, settled)


def settled_stamps(folder: Path, names: Iterable[str]) -> dict[str, Stamp]:
    """The status of files that were just written, of those that cannot change without a new one.

    Raises:
        OSError: a file is gone.
    """
    now = time.time_ns()
    stamps = {name: stamp(folder / name) for name in names}
    return {name: status for name, status in stamps.items() if is_settled(status, now)}
