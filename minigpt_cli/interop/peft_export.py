"""The adapters of a checkpoint as a folder that Hugging Face's `peft` opens.

`peft` adapts the layers of `transformers`, where `modern` has query, key and value apart, and
`classic` has them in one matrix. One such matrix gets the adapters of its n parts as one of rank
n · rank: their A below each other, and their B along the diagonal.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from minigpt_cli.config.schema import LoraConfig
from minigpt_cli.errors import InteropError
from minigpt_cli.interop.hf_export import as_json, check_folder, write_folder
from minigpt_cli.interop.hf_folder import ADAPTER_CONFIG
from minigpt_cli.interop.hf_format import names_of
from minigpt_cli.interop.parts import Names, adapted_parts, parsed, parts_of
from minigpt_cli.language import _
from minigpt_cli.model.gpt import GPT
from minigpt_cli.model.layers import Linear
from minigpt_cli.runs.checkpoint import Checkpoint
from minigpt_cli.runs.checkpoint_header import LORA_A, LORA_B

WEIGHTS = "adapter_model.safetensors"
FILES = (ADAPTER_CONFIG, WEIGHTS)
"""What an exported folder holds, and nothing else."""


@dataclass(frozen=True)
class _Adapter:
    """An update of one layer of `transformers`: scale · B A."""

    name: str
    """Of the layer, as in `model.layers.0.self_attn.q_proj`."""
    a: Tensor
    """(rank, in)."""
    b: Tensor
    """(out, rank)."""

    @property
    def rank(self) -> int:
        return self.a.size(0)


def export_peft(checkpoint: Checkpoint, out: Path, force: bool = False) -> None:
    """Writes the folder, whole or not at all.

    Args:
        checkpoint: of a run that trained adapters.
        out: the folder to make.
        force: replace an earlier export at `out`.

    Raises:
        InteropError: the checkpoint has no adapters, or damaged ones; `out` exists and may not be
            replaced, or the disk refuses.
    """
    check_folder(out, force, FILES)
    config = checkpoint.metadata.lora
    if config is None or not checkpoint.adapters:
        raise InteropError(
            _(
                "the model was trained without adapters, and peft holds nothing else; export it "
                "with --to hf, or train adapters with --init-from and --lora-rank"
            )
        )
    adapters = [*_adapters(checkpoint, config)]
    tensors = {}
    for adapter in adapters:
        before = f"base_model.model.{adapter.name}"
        tensors[f"{before}.lora_A.weight"] = adapter.a.contiguous()
        tensors[f"{before}.lora_B.weight"] = adapter.b.contiguous()
    names = names_of(checkpoint.model.config)
    texts = {
        ADAPTER_CONFIG: as_json(_config(config, adapters, names, checkpoint.model.config.n_layer))
    }
    write_folder(out, texts, WEIGHTS, tensors)


def _config(
    config: LoraConfig, adapters: list[_Adapter], names: Names, n_layer: int
) -> dict[str, object]:
    layers: dict[str, list[_Adapter]] = {}
    for adapter in adapters:
        layers.setdefault(_inside_block(adapter.name, names), []).append(adapter)
    larger = {layer: n for layer, found in layers.items() if (n := found[0].rank) != config.rank}
    targets: list[str] = []
    for layer, found in layers.items():  # a short name stands for the layer in every block
        targets += [layer] if len(found) == n_layer else [adapter.name for adapter in found]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "target_modules": targets,
        "rank_pattern": larger,
        # The scale, alpha / rank, is the same for all.
        "alpha_pattern": {layer: config.alpha * n / config.rank for layer, n in larger.items()},
        "fan_in_fan_out": bool(names.transposed),
        "bias": "none",
    }


def _inside_block(name: str, names: Names) -> str:
    """`self_attn.q_proj` of `model.layers.0.self_attn.q_proj`."""
    return name.removeprefix(names.block.partition("{}")[0]).partition(".")[2]


def _adapters(checkpoint: Checkpoint, config: LoraConfig) -> Iterator[_Adapter]:
    """The updates of the layers as `transformers` has them.

    Raises:
        InteropError: the tensors are not those of the model's adapters.
    """
    names, left = names_of(checkpoint.model.config), dict(checkpoint.adapters)
    for name, layer in _layers(checkpoint.model):
        parts = adapted_parts(name, config)
        if not parts or name + LORA_A not in left:
            continue
        a, b = left.pop(name + LORA_A), left.pop(name + LORA_B, torch.empty(0))
        rows = [layer.rows[part] for part in parts]
        shapes = [len(parts) * config.rank, layer.in_features], [sum(rows), config.rank]
        if ([*a.shape], [*b.shape]) != shapes:
            raise InteropError(
                _("the adapter of {name} does not fit the layer; train it again").format(name=name)
            )
        if not (a.isfinite().all() and b.isfinite().all()):
            raise InteropError(
                _("the adapter of {name} contains NaN or infinity; train it again").format(
                    name=name
                )
            )
        number, inner, _kind = parsed(f"{name}.weight")
        pieces = zip(parts, torch.split(a, config.rank), torch.split(b, rows), strict=True)
        if inner in names.inner:
            whole = torch.zeros(sum(layer.rows), a.size(0))
            for i, (part, _a, piece) in enumerate(pieces):
                columns = whole[:, i * config.rank : (i + 1) * config.rank]
                torch.split(columns, [*layer.rows])[part].copy_(piece)
            yield _Adapter(_named(names, name), a, whole)
            continue
        for part, piece_a, piece_b in pieces:
            of_part = f"blocks.{number}.{parts_of(inner)[part]}"
            yield _Adapter(_named(names, of_part), piece_a, piece_b)
    if left:
        raise InteropError(
            _("the tensor {name} is not of an adapter of this model").format(
                name=next(iter(left))[:80]
            )
        )


def _layers(model: GPT) -> Iterator[tuple[str, Linear]]:
    for name, module in model.blocks.named_modules(prefix="blocks"):
        if isinstance(module, Linear):
            yield name, module


def _named(names: Names, layer: str) -> str:
    """What `transformers` calls a layer."""
    return names.theirs(f"{layer}.weight").removesuffix(".weight")
