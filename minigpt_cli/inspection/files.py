"""What the header of a safetensors file says: no PyTorch, no tensors read."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from minigpt_cli.model.flops import forward_flops_per_token
from minigpt_cli.runs.checkpoint_header import CheckpointMetadata, Header, TensorEntry, read_header

_COMPONENTS = {
    "token_embedding": "token embedding",
    "position_embedding": "position embedding",
    "norm": "last norm",
    "head": "head",
}
_BLOCK_COMPONENTS = {
    "attention": "attention",
    "gate_up": "feed-forward",
    "up": "feed-forward",
    "down": "feed-forward",
    "norm1": "norms",
    "norm2": "norms",
}


@dataclass(frozen=True)
class Component:
    """Tensors with one role, over all blocks."""

    name: str
    tensors: tuple[TensorEntry, ...]

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self.tensors)


@dataclass(frozen=True)
class Inspection:
    """A file's header, and what can be computed from it."""

    path: Path
    file_bytes: int
    parameters: int
    tensors: tuple[TensorEntry, ...]
    metadata: dict[str, str]
    checkpoint: CheckpointMetadata | None
    """None for another program's file, as are the next two."""
    components: tuple[Component, ...] | None
    flops_per_token: int | None
    """Forward pass, one token at the end of a full window."""


def inspect_file(path: Path) -> Inspection:
    """Reads the header of any safetensors file.

    Raises:
        CheckpointError: it is missing, truncated, or not a safetensors file.
    """
    header = read_header(path)
    checkpoint = header.checkpoint_metadata() if header.is_checkpoint else None
    return Inspection(
        path=path,
        file_bytes=header.file_bytes,
        parameters=sum(tensor.elements for tensor in header.tensors if _is_weight(header, tensor)),
        tensors=header.tensors,
        metadata=header.metadata,
        checkpoint=checkpoint,
        components=_components(header.tensors) if checkpoint else None,
        flops_per_token=forward_flops_per_token(checkpoint.model, checkpoint.vocab_size)
        if checkpoint
        else None,
    )


def _is_weight(header: Header, tensor: TensorEntry) -> bool:
    """A run's state contains the optimizer's tensors too."""
    return not (header.is_state and tensor.name.startswith("optimizer."))


def _components(tensors: tuple[TensorEntry, ...]) -> tuple[Component, ...]:
    """Groups the tensors of a GPT by their role, in the order of the forward pass."""
    groups: dict[str, list[TensorEntry]] = defaultdict(list)
    for tensor in tensors:
        first, *rest = tensor.name.split(".")
        if first == "blocks":
            name = _BLOCK_COMPONENTS.get(rest[1] if len(rest) > 1 else "", "other")
        else:
            name = _COMPONENTS.get(first, "other")
        groups[name].append(tensor)
    order = list(dict.fromkeys([*list(_COMPONENTS.values())[:2], *_BLOCK_COMPONENTS.values()]))
    order += [*list(_COMPONENTS.values())[2:], "other"]
    return tuple(Component(name, tuple(groups[name])) for name in order if name in groups)
