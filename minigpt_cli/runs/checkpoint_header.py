"""What a safetensors file says of itself, read without PyTorch and without its tensors.

The layout (https://huggingface.co/docs/safetensors): eight bytes of header length, a JSON header
of names, dtypes, shapes and offsets, then the tensors' bytes, end to end.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from minigpt_cli.config.schema import Count, DataConfig, ModelConfig
from minigpt_cli.errors import CheckpointError
from minigpt_cli.io.strict_json import read_json

FORMAT_VERSION = 1
LARGEST_HEADER = 100_000_000
"""The limit of the safetensors library itself, in bytes."""
_MOST_AXES = 64
_LARGEST = 2**63 - 1
"""What PyTorch can number."""

_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16,
    "BF16": 16, "I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip

_Measured = Annotated[FiniteFloat, Field(strict=True)]


@dataclass(frozen=True)
class TensorEntry:
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
class CheckpointMetadata:
    """What a checkpoint of ours says of the model it holds."""

    version: str
    """Of the minigpt that wrote it."""
    model: ModelConfig
    vocab_size: Annotated[Count, Field(strict=True)]
    tokenizer: str
    """The whole tokenizer, as `Tokenizer.to_json` gave it."""
    data: DataConfig
    """Which text it learned from, and how that was cut."""
    corpus: str
    fingerprint: str
    """Of the prepared dataset: text, tokenizer settings and split."""
    step: Annotated[int, Field(strict=True, ge=0, le=_LARGEST)]
    train_loss: _Measured | None
    val_loss: _Measured | None
    """Nats per token."""
    bits_per_byte: _Measured | None


@dataclass(frozen=True)
class Header:
    """A safetensors file from outside."""

    path: Path
    file_bytes: int
    metadata: dict[str, str]
    tensors: tuple[TensorEntry, ...]

    @property
    def is_checkpoint(self) -> bool:
        """Whether this is a model that minigpt wrote."""
        return self.metadata.get("format") == "minigpt-checkpoint"

    @property
    def is_state(self) -> bool:
        """Whether this is what a run of minigpt needs to go on."""
        return self.metadata.get("format") == "minigpt-state"

    def checkpoint_metadata(self) -> CheckpointMetadata:
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
            described = read_json(self.metadata["minigpt"])
            version = described.pop("format_version")
            if type(version) is not int or version < 1:
                raise ValueError(f"format_version is {version!r:.80}")
            if version > FORMAT_VERSION:
                raise CheckpointError(
                    f"{self.path}: format {version} is newer than this minigpt reads "
                    f"({FORMAT_VERSION}); upgrade minigpt-cli"
                )
            return _metadata_adapter().validate_python(described)
        except KeyError as error:
            reason = f"it has no {error}"
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "all of it"
            reason = f"{place:.80}: {first['msg']}"
        except (TypeError, AttributeError):
            reason = "it is no JSON object"
        except ValueError as error:
            reason = str(error)
        raise CheckpointError(
            f"{self.path}: its description is damaged ({reason}); restore a backup, or train again"
        )


@cache
def _metadata_adapter() -> TypeAdapter[CheckpointMetadata]:
    return TypeAdapter(CheckpointMetadata)


def read_header(path: Path) -> Header:
    """Reads and checks the header of a safetensors file.

    Raises:
        CheckpointError: there is no such file, or it is truncated, or no safetensors file.
    """
    with open_tensors(path) as (header, _):
        return header


@contextmanager
def open_tensors(path: Path) -> Iterator[tuple[Header, BinaryIO]]:
    """Opens a safetensors file: its header, and the file where the tensors' bytes begin.

    Whatever takes the file's name meanwhile, both are of the same file.

    Raises:
        CheckpointError: there is no such file, or it is truncated, or no safetensors file.
    """
    try:
        with path.open("rb") as file:
            yield _read_header(path, file), file
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; minigpt train makes one") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None


def _read_header(path: Path, file: BinaryIO) -> Header:
    file_bytes = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if file_bytes < 8 or length > LARGEST_HEADER or file_bytes < 8 + length:
        raise CheckpointError(
            f"{path}: no safetensors file, or a truncated one ({file_bytes} bytes, and "
            f"its header claims {length if file_bytes >= 8 else 'more'})"
        )
    try:
        header = read_json(file.read(length).decode("utf-8"))
        metadata = header.pop("__metadata__", {})
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("metadata that is not text")
        tensors = _tensors(header, file_bytes - 8 - length)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: no safetensors file: its header is damaged ({error})"
        ) from None
    return Header(path, file_bytes, metadata, tensors)


def _tensors(header: dict[str, Any], data_bytes: int) -> tuple[TensorEntry, ...]:
    """The tensors in file order, which must lie end to end and fill the file."""
    places = {}
    for name, entry in header.items():
        shape, place = _whole(name, entry["shape"]), _whole(name, entry["data_offsets"])
        # A size of 0 hides the others, and an array of none can still have an impossible shape.
        if len(shape) > _MOST_AXES or math.prod(max(1, size) for size in shape) > _LARGEST:
            raise ValueError(f"{name!r:.80} has an impossible shape")
        if entry["dtype"] not in _BITS:
            raise ValueError(f"{name!r:.80} has the unknown dtype {entry['dtype']!r:.80}")
        places[TensorEntry(name, entry["dtype"], shape)] = place
    tensors, expected = [], 0
    for tensor, place in sorted(places.items(), key=lambda item: item[1]):
        if place != (expected, expected + tensor.bytes):
            raise ValueError(f"the bytes of {tensor.name!r:.80} are not where they should be")
        tensors.append(tensor)
        expected += tensor.bytes
    if expected != data_bytes:
        raise ValueError(f"{data_bytes} bytes of tensors where {expected} are announced")
    return tuple(tensors)


def _whole(name: str, numbers: Any) -> tuple[int, ...]:
    """A list of whole numbers from 0; true and 1.0 are none."""
    if type(numbers) is not list or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError(f"{name!r:.80} has {numbers!r:.80} for a shape or a place")
    return tuple(numbers)
