"""What training takes of memory, by kind, from the sizes of the model and the batch alone.

The formulas say what this program's own forward and backward passes keep; for PyTorch, compare
`tests/training/test_memory.py`, which counts what autograd saves, and `benchmarks/memory.py`, which
measures whole processes. No model is built: one block of it, without memory, is counted.

Shapes: B batch, T time, C n_embd; H n_head, K kv_heads, D head_dim, F hidden, V vocab, L n_layer.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from minigpt_cli.config.schema import ClassicConfig, ModelConfig, ModernConfig, OptimizerConfig
from minigpt_cli.errors import ConfigError
from minigpt_cli.language import _
from minigpt_cli.model.attention import QUERIES_PER_BLOCK
from minigpt_cli.model.gpt import GPT
from minigpt_cli.model.layers import Linear
from minigpt_cli.model.positions import SPAN

_FP32, _INT64 = 4, 8
_LOGITS = 12
"""Bytes for each logit where most are alive: its log-probability, and the gradients of both, fp32.
"""
_MUON = 13
"""Bytes for each weight of the matrices that Muon orthogonalizes together, besides 4 for each of
all its updates: measured, `medium` with batch 1. By count it is three copies and three squares in
bf16, and 2 for each update; the rest is what products work in, and holes between blocks."""
BUCKET_BYTES = 25 * 2**20
"""Gradients that replicas exchange at a time; up to two such buckets are under way."""

# A process on a CPU, measured by `benchmarks/memory.py` with PyTorch 2.13 and glibc:
_LIBRARIES = 50_000_000
"""What PyTorch's libraries and threads allocate when they are first used."""
_FRAGMENTATION = 1.5
"""Heap that short-lived blocks occupy, per byte alive. Blocks of many sizes come and go in the
backward pass, the freed ones are kept (see `io.memory.keep_freed_memory`), and a later one needs a
hole of its own size."""
_OUTSIDE_THE_HEAP = 32 * 2**20
"""Larger blocks come from the system, and are returned to it when they are freed."""
IMPORTED = 250_000_000
"""Python, PyTorch and this program, before a model is built."""
ACCELERATOR_RESERVED = 1_500_000_000
"""An accelerator's context, its libraries' workspaces and rounding in its allocator; unmeasured."""


@dataclass(frozen=True)
class Sizes:
    """How many weights a model has, and where."""

    parameters: int
    per_block: int
    matrices: tuple[tuple[int, int], ...]
    """Rows and columns of each matrix of one block, as Muon updates them."""
    cast_outside: int
    """Weights outside the blocks that are converted in bf16, as all in the blocks are: the head and
    the last norm."""
    embedding: int
    """Weights of the token embedding."""


@dataclass(frozen=True)
class Saved:
    """Tensors of one kind that the forward pass keeps for the backward pass."""

    name: str
    bytes_each: int
    tensors: int = 1

    @property
    def bytes(self) -> int:
        return self.bytes_each * self.tensors


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass of one process."""

    batch_size: int
    """B."""
    bytes_per_value: int
    """2 in bf16, 4 in fp32."""
    on_cpu: bool
    """Whether the CPU's hand-written operations run, and this process's whole memory counts."""
    accumulates: bool = False
    """Whether gradients of earlier passes are already there."""
    checkpointing: bool = False
    """Whether each block keeps only its input, and is computed again for the backward pass."""


@dataclass(frozen=True)
class Memory:
    """What one process (one accelerator) takes, by kind.

    Not all kinds are there at once: see `peak`.
    """

    parameters: int
    """How many there are; everything below is in bytes."""
    weights: int
    gradients: int
    optimizer_state: int
    activations: int
    """What the forward pass keeps for the backward pass, with converted copies of the weights."""
    logits: int
    """Scores of all tokens, and their gradients."""
    transients: int
    """What comes and goes besides: buffers, whole blocks of a model in parts, the update."""
    program: int
    """The program and its libraries; on a CPU also holes in the heap."""
    peak: int
    """The most that is in use at once."""


@lru_cache(maxsize=64)
def sizes_of(config: ModelConfig, vocab_size: int) -> Sizes:
    """Counts the weights of a model, from one block of it without memory.

    Raises:
        ConfigError: a matrix has more elements than can be counted.
    """
    one = config.model_copy(update={"n_layer": 1})
    try:
        with torch.device("meta"):
            model = GPT(one, vocab_size)
    except RuntimeError:
        raise ConfigError(
            _(
                "model.n_embd = {n_embd}: a matrix of such a model is too large to count; use a "
                "smaller one"
            ).format(n_embd=config.n_embd),
            ("model.n_embd",),
        ) from None
    block, total = (sum(p.numel() for p in m.parameters()) for m in (model.blocks[0], model))
    matrices = tuple(
        (rows, module.in_features)
        for module in model.blocks.modules()
        if isinstance(module, Linear)
        for rows in module.matrices
    )
    norm = sum(p.numel() for p in model.norm.parameters())
    return Sizes(
        parameters=total + (config.n_layer - 1) * block,
        per_block=block,
        matrices=matrices,
        cast_outside=vocab_size * config.n_embd + norm,
        embedding=vocab_size * config.n_embd,
    )


def saved_by_block(config: ModelConfig, of: Pass) -> list[Saved]:
    """What one block keeps of its forward pass, without copies of its weights."""
    row = of.batch_size * config.block_size * of.bytes_per_value
    C, F, tokens = config.n_embd, config.hidden, of.batch_size * config.block_size
    saved = [
        Saved("inputs of the norms, and their outputs", C * row, 4),
        *_saved_by_attention(config, of),
    ]
    if isinstance(config, ClassicConfig):
        # ReLU keeps its output, which the next product keeps anyway; GELU its input too.
        saved += [
            Saved("feed-forward layer", F * row, 1 if config.activation == "relu" else 2),
            Saved("statistics of the norms", tokens * _FP32, 4),
        ]
    else:
        norms = 2 + (config.n_head + config.kv_heads if config.qk_norm else 0)
        saved += [
            Saved("gate and up", 2 * F * row),
            # On a CPU, silu(gate) is computed again.
            Saved("feed-forward layer", F * row, 1 if of.on_cpu else 2),
            Saved("statistics of the norms", tokens * norms * _FP32),
        ]
    if config.dropout:
        saved.append(Saved("dropout masks", C * (row if of.on_cpu else tokens), 2))
    return saved


def _saved_by_attention(config: ModelConfig, of: Pass) -> list[Saved]:
    """From the projection's output to attention's, by the path that `causal_attention` takes."""
    B, T, b = of.batch_size, config.block_size, of.bytes_per_value
    H, K, D = config.n_head, config.kv_heads, config.head_dim
    row, q, kv = B * T * b, H * D, K * D
    saved = [Saved("attention's output", q * row)]
    if isinstance(config, ClassicConfig) and config.dropout and of.on_cpu:
        # PyTorch's plain path, in fp32.
        return [
            *saved,
            Saved("queries, keys and values", (q + 2 * kv) * B * T * _FP32),
            Saved("attention's weights, before and after dropout", B * H * T * T * _FP32, 3),
        ]
    if of.on_cpu:  # from copies, in the layout of heads
        saved.append(Saved("queries, keys and values", (q + 2 * kv) * row))
        if isinstance(config, ModernConfig) and config.qk_norm:
            saved.append(Saved("projection's output", (q + 2 * kv) * row))
        if b == _FP32:
            saved.append(Saved("sums of attention's weights", B * T * H * _FP32))
        else:
            whole, rest = divmod(T, QUERIES_PER_BLOCK)
            scores = QUERIES_PER_BLOCK**2 * whole * (whole + 1) // 2 + rest * T
            saved.append(Saved("attention's weights", B * H * scores * b))
        return saved
    saved += [
        Saved("projection's output", (q + 2 * kv) * row),  # the values are a part of it
        Saved("sums of attention's weights", B * T * H * _FP32),
    ]
    if isinstance(config, ModernConfig):
        saved.append(Saved("rotated queries and keys", (q + kv) * row))
    return saved


def saved_outside(config: ModelConfig, vocab_size: int, of: Pass) -> list[Saved]:
    """What embedding, head and loss keep, without copies of their weights."""
    tokens, C, b = of.batch_size * config.block_size, config.n_embd, of.bytes_per_value
    saved = [
        Saved("token ids and targets", tokens * _INT64, 2),
        Saved("input of the last norm, and its output", tokens * C * b, 2),
        Saved("log-probabilities", tokens * vocab_size * _FP32),
    ]
    if isinstance(config, ModernConfig):
        span = min(config.block_size, SPAN)
        saved.append(Saved("table of rotations", 2 * span * config.head_dim * b, 2))
    if config.dropout:
        saved.append(Saved("dropout mask", tokens * C * (b if of.on_cpu else 1)))
    return saved


def casts(sizes: Sizes, config: ModelConfig, of: Pass, sharded: bool = False) -> int:
    """Bytes of the weights' copies in bf16, which live until the backward pass has used them.

    The blocks of a sharded model are gathered in bf16 and let go, so that they keep none.
    """
    if of.bytes_per_value == _FP32:
        return 0
    blocks = 0 if sharded else config.n_layer * sizes.per_block
    return of.bytes_per_value * (sizes.cast_outside + blocks)


def replica_fits(parameters: int, device_bytes: float, averages: bool) -> bool:
    """Whether a device holds a whole model, and has room left for the activations.

    What `distributed.strategy = "auto"` asks: weights, gradients, AdamW's state, a bf16 copy and
    perhaps an average are to take at most 70% of its memory.
    """
    return (22 if averages else 18) * parameters <= 0.7 * device_bytes


def training_memory(
    config: ModelConfig,
    vocab_size: int,
    optimizer: OptimizerConfig,
    of: Pass,
    *,
    replicas: int = 1,
    shards: int = 1,
    adapters: int = 0,
) -> Memory:
    """What one process takes at its peak.

    Args:
        config: the model's sizes.
        vocab_size: V.
        optimizer: decides the state kept for each weight.
        of: the forward and backward pass.
        replicas: processes that each hold a whole model, and sum its gradients (DDP).
        shards: processes that each hold a part of everything (FSDP).
        adapters: weights of low-rank adapters, which alone are trained then, by AdamW; 0 without.
    """
    sizes = sizes_of(config, vocab_size)
    P = sizes.parameters
    weights = _FP32 * (P + adapters) // shards
    gradients = _FP32 * (adapters or P) // shards
    state = 2 * gradients if adapters else _state(sizes, config, optimizer) // shards
    state += gradients if optimizer.ema_decay else 0
    blocks = 1 if of.checkpointing else config.n_layer
    kept = [replace(s, tensors=blocks * s.tensors) for s in saved_by_block(config, of)]
    if of.checkpointing:
        kept.append(Saved("block inputs", _tokens(config, of) * config.n_embd, config.n_layer))
    kept += [s for s in saved_outside(config, vocab_size, of) if s.name != "log-probabilities"]
    copies = casts(sizes, config, of, sharded=shards > 1)
    logits = _LOGITS * of.batch_size * config.block_size * vocab_size
    unsharded = 0
    if shards > 1:  # two blocks, gathered in the precision of the pass; the rest; and gradients
        rest = P - config.n_layer * sizes.per_block
        unsharded = 2 * of.bytes_per_value * sizes.per_block
        unsharded += _FP32 * (rest + max(rest, sizes.per_block))
    buckets = 2 * BUCKET_BYTES if replicas > 1 else 0
    update = _update(sizes, config, optimizer)
    twice = not adapters and (config.tie_embeddings or of.accumulates)
    again = _FP32 * sizes.embedding if twice else 0
    heap = _heap(kept, copies) if of.on_cpu else sum(s.bytes for s in kept) + copies
    passing = heap + logits + (gradients if of.accumulates else 0) + unsharded
    stepping = gradients + max(buckets + again // shards + unsharded, update)
    program = IMPORTED + _LIBRARIES if of.on_cpu else ACCELERATOR_RESERVED
    activations = sum(s.bytes for s in kept) + copies
    return Memory(
        parameters=P,
        weights=weights,
        gradients=gradients,
        optimizer_state=state,
        activations=activations,
        logits=logits,
        transients=max(buckets + again // shards + unsharded, update),
        program=program + heap - activations,
        peak=program + weights + state + max(passing, stepping),
    )


def _tokens(config: ModelConfig, of: Pass) -> int:
    return of.batch_size * config.block_size * of.bytes_per_value


def _heap(kept: list[Saved], copies: int) -> int:
    """What the tensors take of a CPU process: more than their bytes, where they share the heap."""
    small = sum(s.bytes for s in kept if s.bytes_each < _OUTSIDE_THE_HEAP) + copies
    return round(_FRAGMENTATION * small) + sum(
        s.bytes for s in kept if s.bytes_each >= _OUTSIDE_THE_HEAP
    )


def _matrices(sizes: Sizes, config: ModelConfig) -> int:
    return config.n_layer * sum(rows * columns for rows, columns in sizes.matrices)


def _state(sizes: Sizes, config: ModelConfig, optimizer: OptimizerConfig) -> int:
    """AdamW keeps two numbers for each weight, Muon one for each in a block's matrices."""
    by_muon = _matrices(sizes, config) if optimizer.name == "muon" else 0
    return _FP32 * (by_muon + 2 * (sizes.parameters - by_muon))


def _update(sizes: Sizes, config: ModelConfig, optimizer: OptimizerConfig) -> int:
    """What a step of the optimizer takes besides weights, gradients and state.

    AdamW updates in place. Muon holds the updates of all matrices, in one process or many, and
    works on those of one shape at a time; processes that share this gather it.
    """
    if optimizer.name == "adamw":
        return 0
    by_shape: Counter[tuple[int, int]] = Counter()
    for rows, columns in sizes.matrices:
        by_shape[rows, columns] += config.n_layer * rows * columns
    return _FP32 * _matrices(sizes, config) + _MUON * max(by_shape.values())
