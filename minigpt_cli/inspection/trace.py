"""A text's way through a model, one operation after another, each written out.

It computes what `GPT.forward` computes, from the model's own modules, and stops after every step to
show what it has; `tests/inspection/test_walk.py` holds its logits against the model's. Where the
model lets a fused kernel work, the formula stands here: softmax(q kᵀ / √D) v (Vaswani et al. 2017).

Shapes: as in `model.py`, B batch, T time, C n_embd, H n_head, K n_kv_head, D head_dim, F hidden,
V vocab.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from minigpt_cli.model.gpt import GPT, ClassicBlock, Linear, ModernBlock
from minigpt_cli.model.kernels import apply_rotary, swiglu

WEIGHTS = "attention.weights"
"""The step in a block whose output is the attention weights, (B, H, T, T)."""

Turn = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Value:
    """A tensor, and what its axes are: `B T C`."""

    axes: str
    tensor: Tensor


@dataclass(frozen=True)
class Step:
    """One operation."""

    layer: int | None
    name: str
    """As the weights are called in a checkpoint, where it has any; without its block's number."""
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    module: nn.Module | None = None
    """Whose parameters it uses."""
    flops: int = 0
    """Multiplications and additions of matrix products."""


Watch = Callable[[Step], None]


@torch.inference_mode()
def traced_forward(model: GPT, idx: Tensor, watch: Watch) -> Tensor:
    """Reads a text step by step, without dropout.

    Args:
        model: is not changed.
        idx: token ids, (B, T), T ≤ `block_size`.
        watch: is shown every step when it is done.

    Returns:
        Logits in fp32, (B, T, V).
    """
    record, dtype = partial(_record, watch, None), model.compute_dtype
    x = model.token_embedding(idx).to(dtype)
    record("token_embedding", [("B T", idx)], [("B T C", x)], model.token_embedding)
    turn = None
    if model.has_relative_positions:
        turn = model.rotary(0, idx.size(1), dtype, idx.device)
    else:
        before, x = x, x + model.position_embedding.weight[: idx.size(1)].to(dtype)
        record("position_embedding", [("B T C", before)], [("B T C", x)], model.position_embedding)
    for layer, block in enumerate(model.blocks):
        x = _block(block, x, turn, partial(_record, watch, layer))
    before, x = x, model.norm(x)
    record("norm", [("B T C", before)], [("B T C", x)], model.norm)
    return _linear("head", model.head, x, ("B T C", "B T V"), record).float()


Record = Callable[..., None]


def _record(
    watch: Watch,
    layer: int | None,
    name: str,
    inputs: list[tuple[str, Tensor]],
    outputs: list[tuple[str, Tensor]],
    module: nn.Module | None = None,
    flops: int = 0,
) -> None:
    ins, outs = (tuple(Value(*value) for value in values) for values in (inputs, outputs))
    watch(Step(layer, name, ins, outs, module, flops))


def _linear(name: str, module: Linear, x: Tensor, axes: tuple[str, str], record: Record) -> Tensor:
    out: Tensor = module(x)
    flops = 2 * out.numel() * module.in_features
    record(name, [(axes[0], x)], [(axes[1], out)], module, flops)
    return out


def _block(block: nn.Module, x: Tensor, turn: Turn | None, record: Record) -> Tensor:
    assert isinstance(block, ClassicBlock | ModernBlock)
    normed = block.norm1(x)
    record("norm1", [("B T C", x)], [("B T C", normed)], block.norm1)
    if isinstance(block, ClassicBlock):
        q, k, v = _classic_heads(block, normed, record)
        keys = "B H T D"
    else:
        assert turn is not None
        q, k, v = _modern_heads(block, normed, turn, record)
        keys = "B K T D"
    mixed = _attend(q, k, v, keys, record)
    out = _linear("attention.proj", block.attention.proj, mixed, ("B T C", "B T C"), record)
    before, x = x, x + out
    record("residual", [("B T C", before), ("B T C", out)], [("B T C", x)])
    normed = block.norm2(x)
    record("norm2", [("B T C", x)], [("B T C", normed)], block.norm2)
    if isinstance(block, ClassicBlock):
        wide = _linear("up", block.up, normed, ("B T C", "B T 4C"), record)
        hidden, axes = block.activation(wide), ("B T 4C", "B T 4C")
    else:
        wide = _linear("gate_up", block.gate_up, normed, ("B T C", "B T 2F"), record)
        hidden, axes = swiglu(wide), ("B T 2F", "B T F")
    record("activation", [(axes[0], wide)], [(axes[1], hidden)])
    out = _linear("down", block.down, hidden, (axes[1], "B T C"), record)
    before, x = x, x + out
    record("residual", [("B T C", before), ("B T C", out)], [("B T C", x)])
    return x


def _classic_heads(block: ClassicBlock, x: Tensor, record: Record) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, (B, H, T, D) each."""
    attention, (B, T, C) = block.attention, x.shape
    qkv = _linear("attention.qkv", attention.qkv, x, ("B T C", "B T 3C"), record)
    heads = qkv.view(B, T, 3, attention.n_head, C // attention.n_head)
    q, k, v = heads.permute(2, 0, 3, 1, 4)  # (B, H, T, D) each
    record("attention.heads", [("B T 3C", qkv)], [("B H T D", part) for part in (q, k, v)])
    return q, k, v


def _modern_heads(
    block: ModernBlock, x: Tensor, turn: Turn, record: Record
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, (B, H, T, D), keys and values, (B, K, T, D) each."""
    attention, (B, T, _) = block.attention, x.shape
    qkv = _linear("attention.qkv", attention.qkv, x, ("B T C", "B T (H+2K)D"), record)
    split = qkv.view(B, T, sum(attention.heads), attention.head_dim)
    q, k, v = torch.split(split, list(attention.heads), dim=2)
    axes = ("B T H D", "B T K D", "B T K D")
    record("attention.heads", [("B T (H+2K)D", qkv)], list(zip(axes, (q, k, v), strict=True)))
    normed = []
    for name, norm, part, axis in (
        ("attention.q_norm", attention.q_norm, q, "B T H D"),
        ("attention.k_norm", attention.k_norm, k, "B T K D"),
    ):
        normed.append(norm(part))
        record(name, [(axis, part)], [(axis, normed[-1])], norm)
    q, k = (apply_rotary(part.transpose(1, 2), turn) for part in normed)
    inputs = list(zip(axes[:2], normed, strict=True))
    record("attention.rotate", inputs, [("B H T D", q), ("B K T D", k)])
    return q, k, v.transpose(1, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor, keys: str, record: Record) -> Tensor:
    """What each token takes from itself and those before it, (B, T, C); `keys` are k's axes."""
    B, H, T, D = q.shape
    shared = H // k.size(1)  # so many neighboring queries share a key
    products = 2 * B * H * T * T * D
    scores = q @ k.repeat_interleave(shared, 1).mT * D**-0.5
    record("attention.scores", [("B H T D", q), (keys, k)], [("B H T T", scores)], flops=products)
    later = torch.ones(T, T, dtype=torch.bool, device=q.device).triu(1)
    weights = scores.masked_fill(later, float("-inf")).softmax(-1)
    record(WEIGHTS, [("B H T T", scores)], [("B H T T", weights)])
    mixed: Tensor = (weights @ v.repeat_interleave(shared, 1)).transpose(1, 2).reshape(B, T, H * D)
    record("attention.mix", [("B H T T", weights), (keys, v)], [("B T C", mixed)], flops=products)
    return mixed
