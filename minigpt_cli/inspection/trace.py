"""The forward pass of a model, one operation after another, each recorded.

It computes what `GPT.forward` computes, from the model's own parts;
`tests/inspection/test_trace.py` compares its logits with the model's. Where the model uses a fused
kernel, the formula is written out: softmax(q kᵀ / √D) v (Vaswani et al. 2017).

Shapes: B batch, T time, C n_embd, H n_head, K n_kv_head, D head_dim, F hidden, V vocab.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from minigpt_cli.model.block import Axes, Block, Heads
from minigpt_cli.model.gpt import GPT
from minigpt_cli.model.kernels import apply_rotary
from minigpt_cli.model.layers import Linear
from minigpt_cli.model.positions import Rotary

WEIGHTS = "attention.weights"
"""The operation in a block whose output is the attention weights, (B, H, T, T)."""


@dataclass(frozen=True)
class Value:
    """A tensor and the names of its axes: `B T C`."""

    axes: str
    tensor: Tensor


@dataclass(frozen=True)
class TracedOp:
    """One operation."""

    layer: int | None
    """From 0; None outside the blocks."""
    name: str
    """The name of its weights in a checkpoint, if it has any, without the block's number."""
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    module: nn.Module | None = None
    """The module whose parameters it uses."""
    flops: int = 0
    """Multiplications and additions of matrix products."""


@torch.inference_mode()
def traced_forward(model: GPT, idx: Tensor, on_op: Callable[[TracedOp], None]) -> Tensor:
    """Reads a text operation by operation, without dropout.

    Args:
        model: is not changed.
        idx: token ids, (B, T), T ≤ `block_size`.
        on_op: called with each operation when it is done.

    Returns:
        Logits in fp32, (B, T, V).
    """
    record, T, positions = partial(_record, on_op, None), idx.size(1), model.position_embedding
    embedded = model.token_embedding(idx)
    record("token_embedding", [("B T", idx)], [("B T C", embedded)], model.token_embedding)
    x = positions.add(embedded, 0, T)
    if x is not embedded:
        record("position_embedding", [("B T C", embedded)], [("B T C", x)], positions)
    x = x.to(model.compute_dtype)
    rotary = positions.rotary(0, T, model.compute_dtype, idx.device)
    for layer, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        x = _block(block, x, rotary, model.family.axes, partial(_record, on_op, layer))
    before, x = x, model.norm(x)
    record("norm", [("B T C", before)], [("B T C", x)], model.norm)
    return _linear("head", model.head, x, ("B T C", "B T V"), record).float()


Record = Callable[..., None]
"""`_record` without its first two arguments."""


def _record(
    on_op: Callable[[TracedOp], None],
    layer: int | None,
    name: str,
    inputs: list[tuple[str, Tensor]],
    outputs: list[tuple[str, Tensor]],
    module: nn.Module | None = None,
    flops: int = 0,
) -> None:
    ins, outs = (tuple(Value(*value) for value in values) for values in (inputs, outputs))
    on_op(TracedOp(layer, name, ins, outs, module, flops))


def _linear(name: str, module: Linear, x: Tensor, axes: tuple[str, str], record: Record) -> Tensor:
    out: Tensor = module(x)
    flops = 2 * out.numel() * module.in_features
    record(name, [(axes[0], x)], [(axes[1], out)], module, flops)
    return out


def _block(block: Block, x: Tensor, rotary: Rotary | None, axes: Axes, record: Record) -> Tensor:
    normed = block.norm1(x)
    record("norm1", [("B T C", x)], [("B T C", normed)], block.norm1)
    q, k, v = _heads(block, normed, rotary, axes, record)
    heads_axes = _heads_axes(block.attention.proj)
    attn_out = _attend(q, k, v, (f"B {axes.kv_head} T D", heads_axes), record)
    out = _linear("attention.proj", block.attention.proj, attn_out, (heads_axes, "B T C"), record)
    before, x = x, x + out
    record("residual", [("B T C", before), ("B T C", out)], [("B T C", x)])
    normed = block.norm2(x)
    record("norm2", [("B T C", x)], [("B T C", normed)], block.norm2)
    name = next(name for name, module in block.named_children() if module is block.expand)
    expanded_axes, hidden_axes = f"B T {axes.expanded}", f"B T {axes.hidden}"
    expanded = _linear(name, block.expand, normed, ("B T C", expanded_axes), record)
    hidden = block.activation(expanded)
    record("activation", [(expanded_axes, expanded)], [(hidden_axes, hidden)])
    out = _linear("down", block.down, hidden, (hidden_axes, "B T C"), record)
    before, x = x, x + out
    record("residual", [("B T C", before), ("B T C", out)], [("B T C", x)])
    return x


def _heads(block: Block, x: Tensor, rotary: Rotary | None, axes: Axes, record: Record) -> Heads:
    """Queries, (B, H, T, D), keys and values, (B, K, T, D) each."""
    attention, K = block.attention, axes.kv_head
    qkv_axes, by_head = f"B T {axes.qkv}", ("B H T D", f"B {K} T D", f"B {K} T D")
    qkv = _linear("attention.qkv", attention.qkv, x, ("B T C", qkv_axes), record)
    q, k, v = attention.split(qkv)
    if attention.q_norm is None and attention.k_norm is None and rotary is None:
        heads = (q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        record("attention.heads", [(qkv_axes, qkv)], list(zip(by_head, heads, strict=True)))
        return heads
    q_axes, k_axes = "B T H D", f"B T {K} D"
    record("attention.heads", [(qkv_axes, qkv)], [(q_axes, q), (k_axes, k), (k_axes, v)])
    if attention.q_norm is not None and attention.k_norm is not None:
        before, q = q, attention.q_norm(q)
        record("attention.q_norm", [(q_axes, before)], [(q_axes, q)], attention.q_norm)
        before, k = k, attention.k_norm(k)
        record("attention.k_norm", [(k_axes, before)], [(k_axes, k)], attention.k_norm)
    inputs = [(q_axes, q), (k_axes, k)]
    q, k = q.transpose(1, 2), k.transpose(1, 2)
    if rotary is not None:
        q, k = apply_rotary(q, rotary), apply_rotary(k, rotary)
    record("attention.rotate", inputs, list(zip(by_head, (q, k), strict=False)))
    return q, k, v.transpose(1, 2)


def _heads_axes(proj: Linear) -> str:
    """The heads of a token side by side: as wide as the residual stream, or not."""
    return "B T C" if proj.in_features == proj.out_features else "B T HD"


def _attend(q: Tensor, k: Tensor, v: Tensor, axes: tuple[str, str], record: Record) -> Tensor:
    """The weighted sum of the values of each token and those before it, (B, T, H D)."""
    k_axes, heads_axes = axes
    B, H, T, D = q.shape
    group = H // k.size(1)  # neighboring queries that share a key
    products = 2 * B * H * T * T * D
    scores = q @ k.repeat_interleave(group, 1).mT * D**-0.5
    record("attention.scores", [("B H T D", q), (k_axes, k)], [("B H T T", scores)], flops=products)
    later = torch.ones(T, T, dtype=torch.bool, device=q.device).triu(1)
    weights = scores.masked_fill(later, float("-inf")).softmax(-1)
    record(WEIGHTS, [("B H T T", scores)], [("B H T T", weights)])
    heads = weights @ v.repeat_interleave(group, 1)  # (B, H, T, D)
    attn_out: Tensor = heads.transpose(1, 2).flatten(2)  # (B, T, H D)
    inputs, outputs = [("B H T T", weights), (k_axes, v)], [(heads_axes, attn_out)]
    record("attention.mix", inputs, outputs, flops=products)
    return attn_out
