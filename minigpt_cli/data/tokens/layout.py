"""Which files of a prepared folder hold its tokens: one for each split, or shards."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from minigpt_cli.config.choices import Split
from minigpt_cli.data.metadata import DatasetMetadata, digest_of
from minigpt_cli.data.tokens.sharded_tokens import ShardedTokens
from minigpt_cli.data.tokens.shards import MANIFEST, read_manifest
from minigpt_cli.data.tokens.token_files import Tokens, mapped_together
from minigpt_cli.language import _

SPLITS: tuple[Literal["train", "val"], ...] = ("train", "val")


@dataclass(frozen=True)
class TokenFile:
    """A file of token ids."""

    split: str
    name: str
    tokens: int


@dataclass(frozen=True)
class Hashed:
    """Files that have one digest."""

    files: tuple[TokenFile, ...]
    sha256: str

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(file.name for file in self.files)


@dataclass(frozen=True)
class Layout:
    """All files of tokens of a prepared folder, in order."""

    folder: Path
    dtype: str
    hashed: tuple[Hashed, ...]
    is_sharded: bool

    @property
    def files(self) -> tuple[TokenFile, ...]:
        return tuple(file for group in self.hashed for file in group.files)

    def tokens(self, split: Split) -> Tokens:
        """The token ids of one split, mapped from disk, or of the whole text.

        Raises:
            CorpusError: the disk cannot hold a copy of the whole text.
        """
        files = [
            (self.folder / file.name, file.tokens)
            for file in self.files
            if split in (file.split, "all")
        ]
        if self.is_sharded:
            return ShardedTokens(files, self.dtype)
        arrays = [
            np.memmap(path, dtype=self.dtype, mode="r") if count else np.empty(0, dtype=np.uint16)
            for path, count in files
        ]
        return arrays[0] if split != "all" else mapped_together(arrays, self.dtype)


def layout_of(folder: Path, metadata: DatasetMetadata) -> Layout:
    """The files that a prepared folder should have.

    Raises:
        OSError: the manifest of shards cannot be read.
        ValueError: it is damaged, or of other shards.
    """
    counts = (metadata.train_tokens, metadata.val_tokens)
    if not (folder / MANIFEST).exists():
        whole = tuple(
            TokenFile(split, f"{split}.bin", count)
            for split, count in zip(SPLITS, counts, strict=True)
        )
        return Layout(folder, metadata.dtype, (Hashed(whole, metadata.sha256),), is_sharded=False)
    if digest_of(folder, [MANIFEST]) != metadata.sha256:
        raise ValueError(_("{name} has been changed").format(name=MANIFEST))
    manifest = read_manifest(folder)
    found = tuple(sum(shard.tokens for shard in manifest.of(split)) for split in SPLITS)
    if found != counts:
        raise ValueError(_("{name} counts other tokens").format(name=MANIFEST))
    hashed = tuple(
        Hashed((TokenFile(shard.split, shard.name, shard.tokens),), shard.sha256)
        for shard in manifest.shards
    )
    return Layout(folder, metadata.dtype, hashed, is_sharded=True)
