"""Which format and which compression a file has, by its name and its first bytes."""

from pathlib import Path
from typing import Literal

FormatName = Literal["text", "jsonl", "csv", "parquet", "arrow"]
Compression = Literal["", "gzip", "zstd"]

RECORDS: dict[str, FormatName] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet",
    ".arrow": "arrow",
}  # fmt: skip
"""Suffixes of files that are made of records."""
COMPRESSED: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
"""Suffixes of compressed files, after that of what is in them."""
_MAGIC: dict[bytes, Compression] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


def inner_suffix(path: Path) -> str:
    """The suffix, in lower case; of a compressed file that of its contents: `.txt` of `a.txt.gz`.

    Empty for a compressed file without another suffix.
    """
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in COMPRESSED else suffix


def compression_of(head: bytes) -> Compression:
    """How a file with these first bytes is compressed; empty where it is not."""
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")


def format_of(path: Path, head: bytes) -> FormatName:
    """The format of a file.

    Args:
        path: its name.
        head: its first bytes, decompressed.
    """
    if head.startswith(b"PAR1") and b"\0" in head:
        return "parquet"
    return RECORDS.get(inner_suffix(path), "text")
