"""A model's weights under other programs' names.

minigpt stacks matrices that read the same input (query, key and value; gate and up) into one.
Formats that keep them apart get them as parts: `blocks.0.attention.qkv.weight` becomes
`blocks.0.attention.q.weight`, `….k.weight` and `….v.weight`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt_cli.config.schema import LoraConfig
from minigpt_cli.model.gpt import GPT
from minigpt_cli.model.layers import Linear
from minigpt_cli.runs.checkpoint import model_tensors

STACKED = {
    "attention.qkv": ("attention.q", "attention.k", "attention.v"),
    "gate_up": ("gate", "up"),
}
"""Stacked layers of a block, and their parts in order."""


@dataclass(frozen=True)
class Names:
    """What a format calls the layers."""

    outer: Mapping[str, str]
    """Layers that a model has once."""
    inner: Mapping[str, str]
    """Layers of each block."""
    block: str
    """What precedes an inner name; `{}` is the block's number."""
    transposed: frozenset[str] = frozenset()
    """Inner layers whose weight is stored as (in, out)."""

    def theirs(self, name: str) -> str:
        """The format's name of a tensor."""
        number, layer, kind = parsed(name)
        if number is None:
            return f"{self.outer[layer]}.{kind}"
        return f"{self.block.format(number)}.{self.inner[layer]}.{kind}"

    def is_transposed(self, name: str) -> bool:
        """Whether the format stores this weight as (in, out)."""
        number, layer, kind = parsed(name)
        return number is not None and kind == "weight" and layer in self.transposed


def parsed(name: str) -> tuple[int | None, str, str]:
    """A tensor's block, if it is in one, its layer there, and `weight` or `bias`."""
    layer, _, kind = name.rpartition(".")
    if not layer.startswith("blocks."):
        return None, layer, kind
    _, number, inner = layer.split(".", 2)
    return int(number), inner, kind


def parts_of(layer: str) -> tuple[str, ...]:
    """The matrices stacked in a layer of a block, in order; itself if it is only one."""
    return STACKED.get(layer, (layer,))


def adapted_parts(name: str, config: LoraConfig) -> tuple[int, ...]:
    """The indices of the matrices in a layer, such as `blocks.0.gate_up`, that get an adapter."""
    _, layer, _ = parsed(f"{name}.weight")
    short = [part.removeprefix("attention.") for part in parts_of(layer)]
    return tuple(index for index, part in enumerate(short) if part in config.targets)


def weights(model: GPT, names: Names) -> dict[str, Tensor]:
    """A model's tensors by minigpt's names, cut where the format keeps parts apart.

    A tied head is left out, since it is the embedding.
    """
    modules = dict(model.named_modules())
    tensors = {}
    for name, tensor in model_tensors(model).items():
        _, inner, kind = parsed(name)
        if inner not in STACKED or inner in names.inner:
            tensors[name] = tensor
            continue
        layer = modules[name.removesuffix(f".{kind}")]
        assert isinstance(layer, Linear)
        before = name.removesuffix(f"{inner}.{kind}")
        for part, rows in zip(STACKED[inner], torch.split(tensor, [*layer.rows]), strict=True):
            tensors[f"{before}{part}.{kind}"] = rows
    return tensors


def with_zero_biases(
    tensors: dict[str, Tensor], layers: Collection[str] | None = None
) -> dict[str, Tensor]:
    """The same with a bias of zeros for layers that have none.

    Args:
        tensors: by minigpt's names.
        layers: inner layers; None for all of them, and the last norm.
    """
    filled = dict(tensors)
    for name, weight in tensors.items():
        number, layer, kind = parsed(name)
        wanted = (number is not None or layer == "norm") if layers is None else layer in layers
        if kind == "weight" and wanted:
            filled.setdefault(f"{name.removesuffix(kind)}bias", weight.new_zeros(weight.size(0)))
    return filled
