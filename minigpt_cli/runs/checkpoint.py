"""Models and training states in and out of single safetensors files, never pickle.

A file is written under another name, synced and renamed, so it is there whole or not at all. It
carries a digest of its tensors and metadata, which reading verifies: safetensors itself has none,
and would load a flipped bit silently.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from minigpt_cli.config.schema import ModelConfig
from minigpt_cli.device import LESS_MEMORY, machine_memory, reraise_out_of_memory
from minigpt_cli.errors import CheckpointError, TokenizerError
from minigpt_cli.io.atomic import replacing
from minigpt_cli.language import _
from minigpt_cli.model.gpt import GPT
from minigpt_cli.runs.checkpoint_header import (
    CHECKPOINT_FORMAT,
    FORMAT_VERSION,
    LORA_SUFFIXES,
    CheckpointMetadata,
    Header,
    TensorEntry,
    damaged,
    metadata_adapter,
    open_tensors,
)
from minigpt_cli.runs.folder import file_errors
from minigpt_cli.tokenizer.base import Tokenizer
from minigpt_cli.tokenizer.factory import tokenizer_from_json

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""By their names in the format; minigpt writes only some of them."""


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to use, with its tokenizer and metadata."""

    model: GPT
    tokenizer: Tokenizer
    metadata: CheckpointMetadata
    adapters: Mapping[str, Tensor] = field(default_factory=dict)
    """Of a run that trained adapters: their weights by name. The model includes their effect."""


@dataclass(frozen=True)
class PendingFile:
    """The content of a safetensors file that is yet to be written."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    def copied(self) -> "PendingFile":
        """The same with copies of its tensors, which training does not change."""
        tensors = {
            name: tensor.detach().to("cpu", copy=True) for name, tensor in self.tensors.items()
        }
        return PendingFile(self.path, tensors, self.metadata)

    def write(self) -> None:
        """Writes it atomically, with a digest.

        Raises:
            CheckpointError: the write failed; the path holds the old file or the new one.
        """
        write_tensors(self.path, self.tensors, self.metadata)


def checkpoint_file(
    path: Path,
    model: GPT,
    metadata: CheckpointMetadata,
    adapters: Mapping[str, Tensor] | None = None,
) -> PendingFile:
    """A model with everything needed to use it, as the content of one file.

    Adapters are kept beside the weights that include their effect.
    """
    values = metadata_adapter().dump_python(metadata, mode="json")
    values["format_version"] = FORMAT_VERSION
    header = {"format": CHECKPOINT_FORMAT, "minigpt": json.dumps(values)}
    return PendingFile(path, {**model_tensors(model), **(adapters or {})}, header)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Reads and verifies a model.

    Raises:
        CheckpointError: the file is missing, damaged, or not a minigpt checkpoint.
    """
    with open_tensors(path) as (header, file):
        metadata = header.checkpoint_metadata()
        tensors, _metadata = _verified(header, file)
    adapters = {
        name: tensors.pop(name)
        for name in [*tensors]
        if metadata.lora is not None and name.endswith(LORA_SUFFIXES)
    }
    try:
        tokenizer = tokenizer_from_json(metadata.tokenizer)
    except TokenizerError as error:
        raise damaged(path, str(error)) from None
    if tokenizer.vocab_size != metadata.vocab_size:
        raise damaged(
            path,
            _("its tokenizer has {vocab_size} tokens but its model {vocabulary}").format(
                vocab_size=tokenizer.vocab_size, vocabulary=metadata.vocab_size
            ),
        )
    model = filled_model(metadata.model, metadata.vocab_size, tensors, path)
    return Checkpoint(model.to(device).eval(), tokenizer, metadata, adapters)


def filled_model(
    config: ModelConfig, vocab_size: int, tensors: dict[str, Tensor], path: Path
) -> GPT:
    """The model with these weights; its claimed sizes are compared with them before allocation.

    Raises:
        CheckpointError: names, shapes or dtypes do not match, or a weight is not finite.
    """
    # Every layer has tensors, so these two checks bound what a false claim can make us allocate.
    if config.n_layer > len(tensors):
        raise CheckpointError(
            _(
                "{path}: claims {n_layer} layers but has {number} tensors; restore a backup, "
                "or train again"
            ).format(path=path, n_layer=config.n_layer, number=len(tensors))
        )
    embedding = tensors.get("token_embedding.weight", torch.empty(0))
    if list(embedding.shape) != [vocab_size, config.n_embd]:
        raise CheckpointError(
            _(
                "{path}: the tensor token_embedding.weight is {shape} but the model needs "
                "{expected}; restore a backup, or train again"
            ).format(path=path, shape=list(embedding.shape), expected=[vocab_size, config.n_embd])
        )
    with torch.device("meta"):  # sizes without memory
        model = GPT(config, vocab_size)
    check_model_tensors(model, tensors, path)
    model.load_state_dict(tensors, strict=False, assign=True)
    if config.tie_embeddings:
        model.head.weight = model.token_embedding.weight
    return model


def model_tensors(model: GPT) -> dict[str, Tensor]:
    """The weights by name; a tied head is left out, since it is the embedding."""
    tensors = dict(model.state_dict())
    if model.config.tie_embeddings:
        del tensors["head.weight"]
    return tensors


def load_model_tensors(model: GPT, tensors: dict[str, Tensor], path: Path) -> None:
    """Loads weights into a model.

    Raises:
        CheckpointError: names, shapes or dtypes do not match, or a weight is not finite.
    """
    check_model_tensors(model, tensors, path)
    model.load_state_dict(tensors, strict=False)  # a tied head comes with its embedding


def check_model_tensors(model: GPT, tensors: dict[str, Tensor], path: Path) -> None:
    """Compares tensors with those of a model.

    Raises:
        CheckpointError: names, shapes or dtypes do not match, or a weight is not finite.
    """
    wanted = model_tensors(model)
    for name in sorted(wanted.keys() ^ tensors.keys()):
        state = _("missing") if name in wanted else _("unexpected")
        raise damaged(path, _("the tensor {name:.80} is {state}").format(name=name, state=state))
    for name, tensor in tensors.items():
        if (tensor.shape, tensor.dtype) != (wanted[name].shape, wanted[name].dtype):
            raise damaged(
                path,
                _(
                    "the tensor {name} is {dtype} {shape} but the model needs "
                    "{wanted_dtype} {wanted_shape}"
                ).format(
                    name=name,
                    dtype=tensor.dtype,
                    shape=list(tensor.shape),
                    wanted_dtype=wanted[name].dtype,
                    wanted_shape=list(wanted[name].shape),
                ),
            )
        if not tensor.isfinite().all():
            raise damaged(path, _("the tensor {name} contains NaN or infinity").format(name=name))


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes tensors and text atomically, with a digest of both.

    Raises:
        CheckpointError: the write failed; the path holds the old file or the new one.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {**metadata, "digest": _digest(tensors, metadata)}
    with file_errors(path, "written", also=(SafetensorError,)), replacing(path) as temporary:
        save_file(tensors, temporary, metadata)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a file that `write_tensors` wrote, and verifies its digest.

    Raises:
        CheckpointError: the file is missing, not from minigpt, or changed since it was written.
    """
    with open_tensors(path) as (header, file):
        return _verified(header, file)


def _verified(header: Header, file: BinaryIO) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file, if they match its digest."""
    path, metadata = header.path, dict(header.metadata)
    _check_fits(header)
    with reraise_out_of_memory(LESS_MEMORY):
        tensors = {entry.name: read_tensor(path, entry, file) for entry in header.tensors}
    digest = metadata.pop("digest", None)
    if digest != _digest(tensors, metadata):
        raise damaged(path, _("damaged: its content does not match its digest"))
    return tensors, metadata


def _check_fits(header: Header) -> None:
    """Compares a file with the machine before reading it: a sparse file can claim any size.

    Raises:
        CheckpointError: the tensors need more memory than there is.
    """
    needed, memory = sum(entry.bytes for entry in header.tensors), machine_memory()
    if memory is not None and needed > memory:
        raise CheckpointError(
            _(
                "{path}: its tensors need {needed:,.1f} GB of memory and this machine has "
                "{memory:,.1f}; use a larger machine"
            ).format(path=header.path, needed=needed / 1e9, memory=memory / 1e9)
        )


def read_tensor(path: Path, entry: TensorEntry, file: BinaryIO) -> Tensor:
    """Reads the next tensor into memory of its own; the library would map the file."""
    if entry.dtype not in _DTYPES:
        problem = _("the tensor {name:.80} is {dtype}, which minigpt never writes").format(
            name=entry.name, dtype=entry.dtype
        )
        raise damaged(path, problem)
    tensor = torch.empty(entry.shape, dtype=_DTYPES[entry.dtype])
    read = file.readinto(tensor.view(-1).view(torch.uint8).numpy())  # type: ignore[attr-defined]
    if read != entry.bytes:  # truncated since its header was read
        raise damaged(path, _("ends in the middle of {name:.80}").format(name=entry.name))
    return tensor


def _digest(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
