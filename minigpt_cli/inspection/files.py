"""What the header of a safetensors file says: no PyTorch, no tensors read."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from minigpt_cli.language import mark
from minigpt_cli.model.flops import forward_flops_per_token
from minigpt_cli.runs.checkpoint_header import (
    LORA_SUFFIXES,
    CheckpointMetadata,
    Header,
    TensorEntry,
    read_header,
)

_COMPONENTS = {
    "token_embedding": mark("token embedding", "component"),
    "position_embedding": mark("position embedding", "component"),
    "norm": mark("last norm", "component"),
    "head": mark("head", "component"),
}
_BLOCK_COMPONENTS = {
    "attention": mark("attention", "component"),
    "gate_up": mark("feed-forward", "component"),
    "up": mark("feed-forward", "component"),
    "down": mark("feed-forward", "component"),
    "norm1": mark("norms", "component"),
    "norm2": mark("norms", "component"),
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
class Inspection(Header):
    """A file's header, and what can be computed from it."""

    checkpoint: CheckpointMetadata | None
    """None for another program's file, as are `components` and `flops_per_token`."""

    @property
    def parameters(self) -> int:
        """Weights of the model.

        A run's state contains the optimizer's tensors too, and both files may contain adapters.
        """
        skipped = "optimizer." if self.is_state else ()
        return sum(t.elements for t in self._weights if not t.name.startswith(skipped))

    @property
    def _weights(self) -> tuple[TensorEntry, ...]:
        """The tensors without those of adapters, whose effect is in the others."""
        if not (self.is_state or self.is_checkpoint):
            return self.tensors
        return tuple(t for t in self.tensors if not t.name.endswith(LORA_SUFFIXES))

    @property
    def components(self) -> tuple[Component, ...] | None:
        return _components(self._weights) if self.checkpoint else None

    @property
    def flops_per_token(self) -> int | None:
        """Forward pass, one token at the end of a full window."""
        if self.checkpoint is None:
            return None
        return forward_flops_per_token(self.checkpoint.model, self.checkpoint.vocab_size)


def inspect_file(path: Path) -> Inspection:
    """Reads the header of any safetensors file.

    Raises:
        CheckpointError: it is missing, truncated, or not a safetensors file.
    """
    header = read_header(path)
    checkpoint = header.checkpoint_metadata() if header.is_checkpoint else None
    return Inspection(**vars(header), checkpoint=checkpoint)


def _components(tensors: tuple[TensorEntry, ...]) -> tuple[Component, ...]:
    """Groups the tensors of a GPT by their role, in the order of the forward pass."""
    groups: dict[str, list[TensorEntry]] = defaultdict(list)
    for tensor in tensors:
        first, *rest = tensor.name.split(".")
        if first == "blocks":
            name = _BLOCK_COMPONENTS.get(
                rest[1] if len(rest) > 1 else "", mark("other", "component")
            )
        else:
            name = _COMPONENTS.get(first, "other")
        groups[name].append(tensor)
    order = list(dict.fromkeys([*list(_COMPONENTS.values())[:2], *_BLOCK_COMPONENTS.values()]))
    order += [*list(_COMPONENTS.values())[2:], "other"]
    return tuple(Component(name, tuple(groups[name])) for name in order if name in groups)
