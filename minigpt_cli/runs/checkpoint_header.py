"""The header of a safetensors file, read without PyTorch and without its tensors.

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

from minigpt_cli.config.loading import plain_problem
from minigpt_cli.config.schema import (
    Count,
    DataConfig,
    LoraConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
)
from minigpt_cli.errors import CheckpointError, reraise_as
from minigpt_cli.io.regular import open_regular
from minigpt_cli.io.strict_json import read_json
from minigpt_cli.language import _

FORMAT_VERSION = 1
CHECKPOINT_FORMAT, STATE_FORMAT = "minigpt-checkpoint", "minigpt-state"
LORA_A, LORA_B = LORA_SUFFIXES = (".lora_a", ".lora_b")
"""What the names of an adapter's weights end in, after the name of its layer."""
LARGEST_HEADER = 100_000_000
"""The safetensors library's own limit, in bytes."""
_MOST_AXES = 64
_LARGEST = 2**63 - 1
"""The largest index in PyTorch."""

_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16,
    "BF16": 16, "I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip

_Finite = Annotated[FiniteFloat, Field(strict=True)]


@dataclass(frozen=True)
class TensorEntry:
    """One tensor in the header."""

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
    """What a minigpt checkpoint records about its model."""

    version: str
    """The version of minigpt that wrote it."""
    model: ModelConfig
    vocab_size: Annotated[Count, Field(strict=True)]
    tokenizer: str
    """The whole tokenizer, from `Tokenizer.to_json`."""
    data: DataConfig
    """The training text, and how it was tokenized."""
    corpus: str
    fingerprint: str
    """Fingerprint of the prepared dataset: text, tokenizer settings and split."""
    step: Annotated[int, Field(strict=True, ge=0, le=_LARGEST)]
    train_loss: _Finite | None
    val_loss: _Finite | None
    """Nats per token."""
    bits_per_byte: _Finite | None
    optimizer: OptimizerConfig | None = None
    """The run's settings; minigpt 0.1.0 did not record these, nor `train`."""
    train: TrainConfig | None = None
    lora: LoraConfig | None = None

    @property
    def config(self) -> RunConfig | None:
        """All settings of the run; None if the checkpoint does not record them."""
        if self.optimizer is None or self.train is None:
            return None
        return RunConfig(
            model=self.model, data=self.data, optimizer=self.optimizer, train=self.train,
            lora=self.lora,
        )  # fmt: skip


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file of unknown origin."""

    path: Path
    file_bytes: int
    metadata: dict[str, str]
    tensors: tuple[TensorEntry, ...]

    @property
    def is_checkpoint(self) -> bool:
        """Whether this is a model written by minigpt."""
        return self.metadata.get("format") == CHECKPOINT_FORMAT

    @property
    def is_state(self) -> bool:
        """Whether this is the training state of a minigpt run."""
        return self.metadata.get("format") == STATE_FORMAT

    def checkpoint_metadata(self) -> CheckpointMetadata:
        """The model's metadata.

        Raises:
            CheckpointError: not a minigpt checkpoint, or in a newer format, or damaged.
        """
        if not self.is_checkpoint:
            raise CheckpointError(
                _(
                    "{path}: a safetensors file, but not a minigpt checkpoint (its metadata "
                    "has no model); minigpt inspect can list its tensors"
                ).format(path=self.path)
            )
        try:
            described = read_json(self.metadata["minigpt"])
            version = described.pop("format_version")
            if type(version) is not int or version < 1:
                raise ValueError(_("format_version is {version!r:.80}").format(version=version))
            if version > FORMAT_VERSION:
                raise CheckpointError(
                    _(
                        "{path}: format {version} is newer than this minigpt reads "
                        "({format_version}); upgrade minigpt-cli"
                    ).format(path=self.path, version=version, format_version=FORMAT_VERSION)
                )
            return metadata_adapter().validate_python(described)
        except KeyError as error:
            reason = _("{error} is missing").format(error=error)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or _("metadata")
            reason = f"{place:.80}: {plain_problem(first)}"
        except (TypeError, AttributeError):
            reason = _("not a JSON object")
        except ValueError as error:
            reason = str(error)
        raise damaged(self.path, _("its metadata is damaged ({reason})").format(reason=reason))


def damaged(path: Path, problem: str) -> CheckpointError:
    """The error for a file whose content is not what minigpt wrote."""
    return CheckpointError(
        _("{path}: {problem}; restore a backup, or train again").format(path=path, problem=problem)
    )


@cache
def metadata_adapter() -> TypeAdapter[CheckpointMetadata]:
    """Reads and writes the metadata."""
    return TypeAdapter(CheckpointMetadata)


def read_header(path: Path) -> Header:
    """Reads and checks the header of a safetensors file.

    Raises:
        CheckpointError: the file is missing, truncated, or not a safetensors file.
    """
    with open_tensors(path) as (header, _):
        return header


def saved_step(state: Path) -> int | None:
    """The step at which a run's state was saved; None if it cannot be read."""
    try:
        metadata = read_header(state).metadata
        step = read_json(metadata["state"])["step"]
    except (CheckpointError, KeyError, ValueError, TypeError):
        return None
    is_state = metadata.get("format") == STATE_FORMAT
    return step if is_state and type(step) is int and step >= 0 else None


@contextmanager
def open_tensors(path: Path) -> Iterator[tuple[Header, BinaryIO]]:
    """Opens a safetensors file: its header, and the file at the first byte of the tensors.

    Both are from the same file, even if it is replaced meanwhile.

    Raises:
        CheckpointError: the file is missing, truncated, or not a safetensors file.
    """
    missing = _("no such file; create one with minigpt train")
    with reraise_as(CheckpointError, path, "read", missing=missing), open_regular(path) as file:
        yield _read_header(path, file), file


def _read_header(path: Path, file: BinaryIO) -> Header:
    file_bytes = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if file_bytes < 8 or length > LARGEST_HEADER or file_bytes < 8 + length:
        raise CheckpointError(
            _(
                "{path}: not a safetensors file, or truncated ({file_bytes} bytes, but its "
                "header claims {length})"
            ).format(
                path=path, file_bytes=file_bytes, length=length if file_bytes >= 8 else _("more")
            )
        )
    try:
        header = read_json(file.read(length).decode("utf-8"))
        metadata = header.pop("__metadata__", {})
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError(_("metadata that is not text"))
        tensors = _tensors(header, file_bytes - 8 - length)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            _("{path}: not a safetensors file: its header is damaged ({error})").format(
                path=path, error=error
            )
        ) from None
    return Header(path, file_bytes, metadata, tensors)


def _tensors(header: dict[str, Any], data_bytes: int) -> tuple[TensorEntry, ...]:
    """The tensors in file order; they must be contiguous and fill the file."""
    places = {}
    for name, entry in header.items():
        shape, place = _whole(name, entry["shape"]), _whole(name, entry["data_offsets"])
        # A size of 0 hides the others: an empty array can still have an impossible shape.
        if len(shape) > _MOST_AXES or math.prod(max(1, size) for size in shape) > _LARGEST:
            raise ValueError(_("{name!r:.80} has an impossible shape").format(name=name))
        if entry["dtype"] not in _BITS:
            raise ValueError(
                _("{name!r:.80} has the unknown dtype {dtype!r:.80}").format(
                    name=name, dtype=entry["dtype"]
                )
            )
        places[TensorEntry(name, entry["dtype"], shape)] = place
    tensors, expected = [], 0
    for tensor, place in sorted(places.items(), key=lambda item: item[1]):
        if place != (expected, expected + tensor.bytes):
            raise ValueError(
                _("the bytes of {name!r:.80} are not where they should be").format(name=tensor.name)
            )
        tensors.append(tensor)
        expected += tensor.bytes
    if expected != data_bytes:
        raise ValueError(
            _("{data_bytes} bytes of tensors instead of {expected}").format(
                data_bytes=data_bytes, expected=expected
            )
        )
    return tuple(tensors)


def _whole(name: str, numbers: Any) -> tuple[int, ...]:
    """Checks a list of integers from 0 on, without true or 1.0."""
    if type(numbers) is not list or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError(
            _("{name!r:.80} has {numbers!r:.80} for a shape or an offset").format(
                name=name, numbers=numbers
            )
        )
    return tuple(numbers)
