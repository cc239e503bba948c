"""What is known about a prepared dataset, and the names of its files."""

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from minigpt_cli.config.choices import TokenizerKind
from minigpt_cli.io.permissions import enterable, restrict
from minigpt_cli.io.regular import open_regular, read_bounded
from minigpt_cli.io.strict_json import read_json

METADATA, TOKENIZER = "facts.json", "tokenizer.json"
_MOST_METADATA, _MOST_TOKENIZER = 1 << 16, 1 << 28

_Count = Annotated[int, Field(ge=0)]
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class DatasetMetadata:
    """What is known about a prepared dataset."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    corpus: str
    fingerprint: str
    kind: TokenizerKind
    vocab_size: Annotated[int, Field(gt=0)]
    dtype: Literal["uint16", "uint32"]
    text_bytes: _Count
    characters: _Count
    train_tokens: _Count
    val_tokens: _Count
    sha256: _Digest
    """Digest of the token ids of both splits on disk."""
    tokenizer_sha256: _Digest
    """Digest of `tokenizer.json`."""
    seconds: Annotated[float, Field(ge=0)]
    """How long preparing took, when it was first prepared."""

    @property
    def tokens(self) -> int:
        return self.train_tokens + self.val_tokens


_SCHEMA = TypeAdapter(DatasetMetadata)


def read_metadata(folder: Path) -> DatasetMetadata:
    """Reads the metadata of a prepared folder.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
    """
    stored = read_bounded(folder / METADATA, _MOST_METADATA).decode()
    read_json(stored)  # refuses what readers of JSON disagree about
    return _SCHEMA.validate_json(stored)


def stored_tokenizer(folder: Path) -> bytes:
    """The tokenizer of a prepared folder, as its JSON.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large to be one.
    """
    return read_bounded(folder / TOKENIZER, _MOST_TOKENIZER)


def digest_of(folder: Path, names: Iterable[str]) -> str:
    """The sha256 of some files, one after the other.

    Raises:
        OSError: one cannot be read.
    """
    digest = hashlib.sha256()
    for name in names:
        with open_regular(folder / name) as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def restrict_all(folder: Path, permissions: int) -> None:
    """Takes from a prepared folder the permissions that its text does not give."""
    restrict(folder, enterable(permissions))
    for path in list(folder.iterdir()):
        with suppress(FileNotFoundError):  # another process has just written its record
            restrict(path, permissions)
