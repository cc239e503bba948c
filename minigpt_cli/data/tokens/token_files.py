"""Files of token ids, in the narrowest dtype that holds them."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from minigpt_cli.data.tokens.sharded_tokens import ShardedTokens
from minigpt_cli.errors import CorpusError, reraise_as
from minigpt_cli.io.regular import open_regular
from minigpt_cli.language import _
from minigpt_cli.tokenizer.base import Tokenizer

_AT_A_TIME = 1 << 18
Tokens = NDArray[np.uint16] | NDArray[np.uint32] | ShardedTokens


def narrowest(tokenizer: Tokenizer) -> Literal["uint16", "uint32"]:
    """The dtype that holds every id."""
    return "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"


def holds_ids_below(path: Path, dtype: str, vocab_size: int) -> bool:
    """Whether all ids of a file are in the vocabulary.

    Raises:
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        while (ids := np.fromfile(file, dtype, _AT_A_TIME)).size:
            if int(ids.max()) >= vocab_size:
                return False
    return True


def write_split(path: Path, arrays: Iterable[NDArray[Any]], dtype: str) -> int:
    """Writes the ids of a split and syncs the file; returns their number."""
    with path.open("wb") as file:
        count = _write_tokens(file, arrays, dtype)
        os.fsync(file.fileno())
    return count


def _write_tokens(file: BinaryIO, arrays: Iterable[NDArray[Any]], dtype: str) -> int:
    count = 0
    for array in arrays:
        file.write(array.astype(dtype, copy=False).data)
        count += array.size
    file.flush()
    return count


def mapped_together(arrays: Iterable[NDArray[Any]], dtype: str) -> Tokens:
    """Concatenates arrays in a temporary mapped file, so that they need not fit into memory."""
    hint = _("free some space or set TMPDIR to another folder")
    with (
        reraise_as(CorpusError, _("temporary file"), "written", hint=hint),
        tempfile.TemporaryFile() as file,
    ):
        count = _write_tokens(file, arrays, dtype)
        if count == 0:
            return np.empty(0, dtype=np.uint16)
        mapped: Tokens = np.memmap(file, dtype=dtype, mode="r", shape=(count,))
        return mapped
