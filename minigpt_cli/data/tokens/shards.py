"""Token files of a large text: shards, and the manifest that vouches for them.

The manifest is a file of JSON lines: first what the shards were made with, then a line for each
shard that is safely on the disk. So it also says where to go on after a crash.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter

from minigpt_cli.io.regular import open_regular, read_bounded
from minigpt_cli.io.strict_json import read_json
from minigpt_cli.language import _

MANIFEST = "shards.jsonl"
SHARD_TOKENS = 100_000_000
"""Most tokens of a shard. Part of the format, like `WHOLE_BYTES`: shards do not depend on cores."""
WHOLE_BYTES = 256_000_000
"""Size of a text up to which a split is one file."""
_MOST_MANIFEST = 1 << 24
_Count = Annotated[int, Field(ge=0)]
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Maker:
    """What shards are made with; others are not gone on with."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    minigpt: str
    tokenizers: str
    """Version of Hugging Face's library."""
    tokenizer_sha256: _Digest
    shard_tokens: Annotated[int, Field(gt=0)]


@dataclass(frozen=True)
class Shard:
    """One file of tokens."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    split: Literal["train", "val"]
    number: _Count
    tokens: _Count
    jobs: _Count
    """In how many shares its text was encoded: where the next shard begins."""
    sha256: _Digest

    @property
    def name(self) -> str:
        """Its file's name."""
        return f"{self.split}-{self.number:05}.bin"


_MAKER, _SHARD = TypeAdapter(Maker), TypeAdapter(Shard)


@dataclass(frozen=True)
class Manifest:
    """All shards, in order."""

    maker: Maker
    shards: tuple[Shard, ...]

    def of(self, split: str) -> tuple[Shard, ...]:
        """The shards of one split."""
        return tuple(shard for shard in self.shards if shard.split == split)


def read_manifest(folder: Path, *, whole: bool = True) -> Manifest:
    """Reads the manifest of a folder.

    Args:
        folder: of a prepared dataset, or of one that is being prepared.
        whole: whether the last line must be complete; a crash may have cut it short.

    Raises:
        OSError: there is none, or it cannot be read.
        ValueError: it is damaged.
    """
    lines = read_bounded(folder / MANIFEST, _MOST_MANIFEST).decode().split("\n")
    rest = lines.pop()
    if (rest and whole) or not lines:
        raise ValueError(_("the last line is not complete"))
    for line in lines:
        read_json(line)  # refuses what readers of JSON disagree about
    shards = tuple(map(_SHARD.validate_json, lines[1:]))
    splits = [shard.split for shard in shards]
    for split in ("train", "val"):
        numbers = [shard.number for shard in shards if shard.split == split]
        if numbers != list(range(len(numbers))) or splits != sorted(splits):
            raise ValueError(_("the shards are not in order"))
    return Manifest(_MAKER.validate_json(lines[0]), shards)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest of shards that are there already, and syncs it.

    Raises:
        OSError: the disk refuses.
    """
    with (folder / MANIFEST).open("wb") as file:
        file.write(_line(manifest.maker))
        file.writelines(map(_line, manifest.shards))
        file.flush()
        os.fsync(file.fileno())


def _line(entry: Maker | Shard) -> bytes:
    return json.dumps(asdict(entry)).encode() + b"\n"


class ShardWriter:
    """Writes the shards of one split after those that are there already.

    Args:
        folder: where they are written.
        split: which split.
        maker: what they are made with.
        first: how many are there already.
        dtype: of the ids on disk.
    """

    def __init__(
        self, folder: Path, split: Literal["train", "val"], maker: Maker, first: int, dtype: str
    ) -> None:
        self._folder, self._split, self._maker = folder, split, maker
        self._number, self._dtype = first, dtype

    def write(self, arrays: Iterator[NDArray[np.uint32]]) -> None:
        """Writes the ids of the rest of the split, an array for each job.

        A shard ends with a job, before it would be too large.

        Raises:
            OSError: the disk refuses.
        """
        held = next(arrays, None)
        while held is not None:
            held = self._write_one(held, arrays)

    def _write_one(
        self, first: NDArray[np.uint32], arrays: Iterator[NDArray[np.uint32]]
    ) -> NDArray[np.uint32] | None:
        """Writes a shard; returns what belongs to the next one."""
        tokens, jobs, digest, following = 0, 0, hashlib.sha256(), None
        path = self._folder / f"{self._split}-{self._number:05}.bin"
        array: NDArray[np.uint32] | None = first
        with path.open("wb") as file:
            while array is not None:
                if jobs and tokens + array.size > self._maker.shard_tokens:
                    following = array
                    break
                data = array.astype(self._dtype, copy=False).data
                file.write(data)
                digest.update(data)
                tokens, jobs = tokens + array.size, jobs + 1
                array = next(arrays, None)
            file.flush()
            os.fsync(file.fileno())
        shard = Shard(self._split, self._number, tokens, jobs, digest.hexdigest())
        with (self._folder / MANIFEST).open("ab") as file:
            file.write(_line(shard))
            file.flush()
            os.fsync(file.fileno())
        self._number += 1
        return following


def is_intact(folder: Path, shard: Shard) -> bool:
    """Whether a shard is what was written."""
    try:
        with open_regular(folder / shard.name) as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == shard.sha256
    except OSError:
        return False
