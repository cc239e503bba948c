"""Files of token ids, in the narrowest dtype that holds them."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from minigpt_cli.errors import CorpusError, reraise_as
from minigpt_cli.tokenizer.base import Tokenizer

TOKEN_FILES = ("train.bin", "val.bin")
Tokens = NDArray[np.uint16] | NDArray[np.uint32]


def narrowest(tokenizer: Tokenizer) -> Literal["uint16", "uint32"]:
    """The dtype that holds every id."""
    return "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"


def write_split(path: Path, arrays: Iterator[NDArray[np.uint32]], dtype: str) -> int:
    """Writes the ids of a split and syncs the file; returns their number."""
    with path.open("wb") as file:
        count = _write_tokens(file, arrays, dtype)
        os.fsync(file.fileno())
    return count


def _write_tokens(file: BinaryIO, arrays: Iterator[Tokens], dtype: str) -> int:
    count = 0
    for array in arrays:
        file.write(array.astype(dtype, copy=False).data)
        count += array.size
    file.flush()
    return count


def mapped_together(arrays: Iterator[Tokens], dtype: str) -> Tokens:
    """Concatenates arrays in a temporary mapped file, so that they need not fit into memory."""
    hint = "free some space or set TMPDIR to another folder"
    with (
        reraise_as(CorpusError, "temporary file", "written", hint=hint),
        tempfile.TemporaryFile() as file,
    ):
        count = _write_tokens(file, arrays, dtype)
        if count == 0:
            return np.empty(0, dtype=np.uint16)
        mapped: Tokens = np.memmap(file, dtype=dtype, mode="r", shape=(count,))
        return mapped
