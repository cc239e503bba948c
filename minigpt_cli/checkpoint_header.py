"""What a safetensors file says of itself, read without PyTorch and without its tensors.

The layout (https://huggingface.co/docs/safetensors): eight bytes of header length, a JSON header
of names, dtypes, shapes and offsets, then the tensors' bytes, end to end.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from minigpt_cli.config import DataConfig, ModelConfig
from minigpt_cli.errors import CheckpointError

FORMAT_VERSION = 1
LARGEST_HEADER = 100_000_000
"""The limit of the safetensors library itself, in bytes."""

_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16,
    "BF16": 16, "I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip


@dataclass(frozen=True)
class TensorFacts:
    """One row of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * _BITS[self.dtype] // 8


@dataclass(frozen=True)
class CheckpointFacts:
    """What a checkpoint of ours says of the model it holds."""

    version: str
    """Of the minigpt that wrote it."""
    model: ModelConfig
    vocab_size: int
    tokenizer: str
    """The whole tokenizer, as `Tokenizer.to_json` gave it."""
    data: DataConfig
    """Which text it learned from, and how that was cut."""
    corpus: str
    fingerprint: str
    """Of the prepared dataset: text, tokenizer settings and split."""
    step: int
    train_loss: float | None
    val_loss: float | None
    """Nats per token."""
    bits_per_byte: float | None


@dataclass(frozen=True)
class Header:
    """A safetensors file from outside."""

    path: Path
    file_bytes: int
    metadata: dict[str, str]
    tensors: tuple[TensorFacts, ...]

    @property
    def is_checkpoint(self) -> bool:
        """Whether this is a model that minigpt wrote."""
        return self.metadata.get("format") == "minigpt-checkpoint"

    def facts(self) -> CheckpointFacts:
        """The model's description.

        Raises:
            CheckpointError: the file is not one of ours, or of a later format, or damaged.
        """
        if not self.is_checkpoint:
            raise CheckpointError(
                f"{self.path}: a safetensors file, but no minigpt checkpoint (its metadata has no "
                "model); minigpt inspect can list its tensors"
            )
        try:
            described = json.loads(self.metadata["minigpt"])
            if described["format_version"] > FORMAT_VERSION:
                raise CheckpointError(
                    f"{self.path}: format {described['format_version']} is newer than this "
                    f"minigpt reads ({FORMAT_VERSION}); upgrade minigpt-cli"
                )
            described.pop("format_version")
            return TypeAdapter(CheckpointFacts).validate_python(described)
        except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(
                f"{self.path}: its description is damaged ({reason}); use another copy"
            ) from None


def read_header(path: Path) -> Header:
    """Reads and checks the header of a safetensors file.

    Raises:
        CheckpointError: there is no such file, or it is truncated, or no safetensors file.
    """
    try:
        with path.open("rb") as file:
            file_bytes = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if file_bytes < 8 or length > LARGEST_HEADER or file_bytes < 8 + length:
                raise CheckpointError(
                    f"{path}: no safetensors file, or a truncated one ({file_bytes} bytes, and "
                    f"its header claims {length if file_bytes >= 8 else 'more'})"
                )
            raw = file.read(length)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; minigpt train makes one") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        header = json.loads(raw)
        metadata = header.pop("__metadata__", {})
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("metadata that is not text")
        tensors = _tensors(header, file_bytes - 8 - length)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: no safetensors file: its header is damaged ({error})"
        ) from None
    return Header(path, file_bytes, metadata, tensors)


def _tensors(header: dict[str, Any], data_bytes: int) -> tuple[TensorFacts, ...]:
    """The tensors in file order, which must lie end to end and fill the file."""
    tensors, expected = [], 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        shape = tuple(entry["shape"])
        if not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"{name} has the shape {list(shape)}")
        if entry["dtype"] not in _BITS:
            raise ValueError(f"{name} has the unknown dtype {entry['dtype']!r}")
        tensor = TensorFacts(name, entry["dtype"], shape)
        begin, end = entry["data_offsets"]
        if begin != expected or end - begin != tensor.bytes:
            raise ValueError(f"the bytes of {name} are not where they should be")
        tensors.append(tensor)
        expected = end
    if expected != data_bytes:
        raise ValueError(f"{data_bytes} bytes of tensors where {expected} are announced")
    return tuple(tensors)
