"""Models and training states in and out of single safetensors files, never pickle.

A file is written under another name, synced and renamed, so it is there whole or not at all. It
carries a digest of its tensors and metadata, which reading verifies: safetensors itself has none,
and would load a flipped bit silently.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from minigpt_cli.atomic import replacing
from minigpt_cli.checkpoint_header import FORMAT_VERSION, CheckpointFacts, read_header
from minigpt_cli.errors import CheckpointError
from minigpt_cli.model import GPT
from minigpt_cli.tokenizer import Tokenizer, tokenizer_from_json


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to use, its tokenizer, and what is known of both."""

    model: GPT
    tokenizer: Tokenizer
    facts: CheckpointFacts


@dataclass(frozen=True)
class TensorFile:
    """What a file is to hold, and where it is to lie."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    def copied(self) -> "TensorFile":
        """The same with tensors of its own, which training does not change."""
        tensors = {name: tensor.detach().clone() for name, tensor in self.tensors.items()}
        return TensorFile(self.path, tensors, self.metadata)

    def write(self) -> None:
        """Does `write_tensors`."""
        write_tensors(self.path, self.tensors, self.metadata)


def checkpoint_file(path: Path, model: GPT, facts: CheckpointFacts) -> TensorFile:
    """A model with everything needed to use it, as one file's content."""
    described = {
        **asdict(facts),
        "model": facts.model.model_dump(mode="json"),
        "data": facts.data.model_dump(mode="json"),
        "format_version": FORMAT_VERSION,
    }
    metadata = {"format": "minigpt-checkpoint", "minigpt": json.dumps(described)}
    return TensorFile(path, model_tensors(model), metadata)


def save_checkpoint(path: Path, model: GPT, facts: CheckpointFacts) -> None:
    """Writes a model with everything needed to use it.

    Raises:
        CheckpointError: the disk refuses; what lay at `path` before is unharmed.
    """
    checkpoint_file(path, model, facts).write()


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Reads a model back, verified.

    Raises:
        CheckpointError: the file is missing, damaged, or not one of ours.
        TokenizerError: its tokenizer is damaged.
    """
    facts = read_header(path).facts()
    tensors, _ = read_tensors(path)
    tokenizer = tokenizer_from_json(facts.tokenizer)
    if tokenizer.vocab_size != facts.vocab_size:
        raise CheckpointError(
            f"{path}: its tokenizer has {tokenizer.vocab_size} tokens and its model "
            f"{facts.vocab_size}; use another copy"
        )
    model = GPT(facts.model, facts.vocab_size)
    load_model_tensors(model, tensors, path)
    return Checkpoint(model.to(device).eval(), tokenizer, facts)


def model_tensors(model: GPT) -> dict[str, Tensor]:
    """The weights by name; a tied head is left out, since it is the embedding."""
    tensors = dict(model.state_dict())
    if model.config.tie_embeddings:
        del tensors["head.weight"]
    return tensors


def load_model_tensors(model: GPT, tensors: dict[str, Tensor], path: Path) -> None:
    """Fills a model with weights.

    Raises:
        CheckpointError: names, shapes or dtypes are not the model's.
    """
    wanted = model_tensors(model)
    for name in sorted(wanted.keys() ^ tensors.keys()):
        state = "missing" if name in wanted else "of no use to this model"
        raise CheckpointError(f"{path}: the tensor {name} is {state}; use another copy")
    for name, tensor in tensors.items():
        if (tensor.shape, tensor.dtype) != (wanted[name].shape, wanted[name].dtype):
            raise CheckpointError(
                f"{path}: the tensor {name} is {tensor.dtype} {list(tensor.shape)} and the model "
                f"needs {wanted[name].dtype} {list(wanted[name].shape)}; use another copy"
            )
    model.load_state_dict(tensors, strict=False)  # a tied head comes with its embedding


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes tensors and text atomically, with a digest of both.

    Raises:
        CheckpointError: the disk refuses; at `path` is what was there before, or the new file.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {**metadata, "digest": _digest(tensors, metadata)}
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"{path}: cannot be written ({reason}); free some space or choose another --out"
        ) from None


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads what `write_tensors` wrote, and verifies the digest.

    Raises:
        CheckpointError: the file is missing, foreign, or has changed since it was written.
    """
    metadata = dict(read_header(path).metadata)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); use another copy") from None
    digest = metadata.pop("digest", None)
    if digest != _digest(tensors, metadata):
        raise CheckpointError(
            f"{path}: damaged: its content does not match its digest; use another copy"
        )
    return tensors, metadata


def _digest(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
