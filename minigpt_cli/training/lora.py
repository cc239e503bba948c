"""Low-rank adapters (LoRA): training a small update of each matrix instead of the matrix.

Each adapted matrix W, (out, in), computes W x + (alpha / rank) · B A x with A, (rank, in), and B,
(out, rank), while W itself is not trained (Hu et al. 2021, https://arxiv.org/abs/2106.09685). B
starts at zero, so that training starts from the model as it is.

Matrices that are stacked in one weight here, such as query, key and value, have an A and a B each:
so the same settings mean the same in both families, and each part can be left out.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt_cli.config.schema import LoraConfig, RunConfig
from minigpt_cli.errors import CheckpointError, ConfigError
from minigpt_cli.interop.parts import adapted_parts
from minigpt_cli.language import _
from minigpt_cli.model.gpt import GPT
from minigpt_cli.model.layers import Linear
from minigpt_cli.runs.checkpoint_header import LORA_A, LORA_B


class AdaptedLinear(Linear):
    """A linear layer that is not trained, with adapters that are.

    Args:
        base: the layer; its weight and bias are shared, not copied.
        parts: indices of the matrices stacked in its weight that get an adapter: n of them.
        config: rank and scale.
    """

    def __init__(self, base: Linear, parts: tuple[int, ...], config: LoraConfig) -> None:
        with torch.device("meta"):  # takes over the weights of `base`
            super().__init__(base.in_features, base.rows, base.bias is not None)
        self.weight, self.bias = base.weight, base.bias
        self._parts, self._rank = parts, config.rank
        self._scale = config.alpha / config.rank
        n, device = len(parts), base.weight.device
        adapted_rows = sum(base.rows[part] for part in parts)
        self.lora_a = nn.Parameter(torch.empty(n * config.rank, base.in_features, device=device))
        self.lora_b = nn.Parameter(torch.empty(adapted_rows, config.rank, device=device))

    def draw(self) -> None:
        """Draws A as linear layers are drawn by default, and sets B to zero."""
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        nn.init.zeros_(self.lora_b)

    def forward(self, x: Tensor) -> Tensor:
        outs = list(torch.split(super().forward(x), [*self.rows], -1))
        low = torch.split(F.linear(x, self.lora_a.to(x.dtype)), self._rank, -1)  # (..., rank) each
        for part, h, b in zip(self._parts, low, self._split_b(), strict=True):
            outs[part] = outs[part] + self._scale * F.linear(h, b.to(x.dtype))
        return outs[0] if len(outs) == 1 else torch.cat(outs, -1)

    def merged(self) -> Linear:
        """A plain layer that computes the same."""
        weight = self.weight.detach().clone()
        self._add_update(weight, 1.0)
        return _plain(self, weight)

    def subtract_update(self) -> None:
        """Turns a merged weight back into what it was, but for rounding."""
        self._add_update(self.weight.data, -1.0)

    def _split_b(self) -> tuple[Tensor, ...]:
        return torch.split(self.lora_b, [self.rows[part] for part in self._parts])

    @torch.no_grad()
    def _add_update(self, weight: Tensor, sign: float) -> None:
        rows, all_a = torch.split(weight, [*self.rows]), torch.split(self.lora_a, self._rank)
        for part, a, b in zip(self._parts, all_a, self._split_b(), strict=True):
            rows[part].add_((b @ a) * self._scale, alpha=sign)


def _plain(layer: Linear, weight: Tensor) -> Linear:
    with torch.device("meta"):
        plain = Linear(layer.in_features, layer.rows, layer.bias is not None)
    plain.weight, plain.bias = nn.Parameter(weight), layer.bias
    return plain


def add_adapters(model: GPT, config: LoraConfig, layers: Collection[str] | None = None) -> None:
    """Gives a model adapters of undefined weights, and leaves nothing else of it to train.

    Args:
        model: changed in place.
        config: rank, scale and targets.
        layers: names of the layers to adapt, if the model has them; by default all whose weight
            is trained.

    Raises:
        ConfigError: the rank is too large, or no layer is left to adapt.
    """
    if config.rank > model.config.n_embd:
        raise ConfigError(
            _(
                "lora.rank = {rank}: larger than the matrices themselves, which have {columns} "
                "columns; use a rank like 8"
            ).format(rank=config.rank, columns=model.config.n_embd)
        )
    found = {
        name: module
        for name, module in model.blocks.named_modules(prefix="blocks")
        if isinstance(module, Linear)
        and (module.weight.requires_grad if layers is None else name in layers)
    }
    model.requires_grad_(False)
    for name, layer in found.items():
        if parts := adapted_parts(name, config):
            model.set_submodule(name, AdaptedLinear(layer, parts, config))
    if not adapted_layers(model):
        raise ConfigError(
            _(
                "lora.targets = {targets}: no such matrix is left to adapt; name others, or freeze "
                "fewer"
            ).format(targets=", ".join(config.targets))
        )


def adapted_layers(model: GPT) -> dict[str, AdaptedLinear]:
    """The layers of a model that have adapters, by name."""
    modules = model.named_modules()
    return {name: module for name, module in modules if isinstance(module, AdaptedLinear)}


def draw_adapters(model: GPT) -> None:
    """Draws every adapter from the global random state."""
    for layer in adapted_layers(model).values():
        layer.draw()


def adapter_tensors(model: GPT) -> dict[str, Tensor]:
    """The weights of a model's adapters, by name."""
    return {
        f"{name}{suffix}": weight.detach()
        for name, layer in adapted_layers(model).items()
        for suffix, weight in ((LORA_A, layer.lora_a), (LORA_B, layer.lora_b))
    }


def adapter_count(config: RunConfig) -> int:
    """How many weights the adapters of a run have, if no layer is frozen; 0 without adapters.

    Raises:
        ConfigError: the rank is too large.
    """
    if config.lora is None:
        return 0
    with torch.device("meta"):  # sizes without memory, of one block: all are alike
        model = GPT(config.model.model_copy(update={"n_layer": 1}), 1)
        add_adapters(model, config.lora)
    return config.model.n_layer * sum(t.numel() for t in adapter_tensors(model).values())


def parameter_counts(model: GPT) -> tuple[int, int]:
    """How many weights a model has, without adapters, and how many weights are trained."""
    weights = [*model.parameters()]
    adapters = sum(tensor.numel() for tensor in adapter_tensors(model).values())
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    return sum(weight.numel() for weight in weights) - adapters, trained


def merge(model: GPT) -> None:
    """Adds every adapter to its matrix, and leaves a plain model, all of it trainable."""
    for name, layer in adapted_layers(model).items():
        model.set_submodule(name, layer.merged())
    model.requires_grad_(True)


def separate(model: GPT, config: LoraConfig, adapters: Mapping[str, Tensor]) -> None:
    """Undoes `merge`, but for rounding: the adapters learn, and the rest is as before them.

    Args:
        model: merged; changed in place.
        config: rank, scale and targets.
        adapters: their weights by name.

    Raises:
        CheckpointError: the adapters do not fit the model.
    """
    add_adapters(model, config, {name.removesuffix(LORA_A) for name in adapters})
    wanted = adapter_tensors(model)
    for name in sorted(wanted.keys() | adapters.keys()):
        if name not in wanted or name not in adapters or wanted[name].shape != adapters[name].shape:
            raise CheckpointError(
                _("the adapter {name} does not fit the model; train it again").format(
                    name=name[:80]
                )
            )
        wanted[name].copy_(adapters[name])
    for layer in adapted_layers(model).values():
        layer.subtract_update()


@contextmanager
def merged(model: GPT) -> Iterator[GPT]:
    """The model with its adapters added to its matrices, inside this context only.

    The adapted matrices are copied, and nothing else; afterwards all is bit for bit as before.
    """
    adapted = adapted_layers(model)
    for name, layer in adapted.items():
        model.set_submodule(name, layer.merged())
    try:
        yield model
    finally:
        for name, layer in adapted.items():
            model.set_submodule(name, layer)
