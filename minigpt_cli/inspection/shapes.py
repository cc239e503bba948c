"""Tensor shapes, parameters and FLOPs of every operation of a forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from minigpt_cli.device import LESS_MEMORY, reraise_out_of_memory
from minigpt_cli.inspection.tokens import window
from minigpt_cli.inspection.trace import TracedOp, Value, traced_forward
from minigpt_cli.language import mark
from minigpt_cli.runs.checkpoint import Checkpoint

MOST_TOKENS = 8192
"""Tokens in a full window, at most: every score of a token with another is computed."""


@dataclass(frozen=True)
class Axis:
    """The meaning of a letter in a shape."""

    letter: str
    meaning: str
    size: int


@dataclass(frozen=True)
class Shape:
    """The axes of a tensor, as in `B T C`, and their sizes."""

    axes: str
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class StepShape:
    """The inputs, outputs and cost of one operation."""

    layer: int | None
    """From 0; None outside the blocks."""
    name: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    parameters: int
    """Number of parameters; those of a tied head count at the embedding."""
    flops: int
    """Multiplications and additions of matrix products, masked scores included."""
    bytes: int
    """Memory for the outputs; a view of an input takes none."""


@dataclass(frozen=True)
class ShapeTrace:
    """All operations of a forward pass, in order."""

    tokens: int
    left_out: int
    """Number of earlier tokens, outside the window."""
    axes: tuple[Axis, ...]
    steps: tuple[StepShape, ...]


@reraise_out_of_memory(LESS_MEMORY)
def trace_shapes(checkpoint: Checkpoint, text: str | None) -> ShapeTrace:
    """Reads a text and records every operation.

    Args:
        checkpoint: a model and its tokenizer.
        text: only its last `block_size` tokens are read; None for a full window of any tokens, or
            `MOST_TOKENS` of a longer one.

    Raises:
        ConfigError: the text is empty.
        TokenizerError: the text contains characters that are not in the vocabulary.
        OutOfMemoryError: memory ran out.
    """
    model, left_out = checkpoint.model, 0
    ids = [0] * min(model.config.block_size, MOST_TOKENS)
    if text is not None:
        read = window(checkpoint, text)
        ids, left_out = list(read.ids), read.left_out
    steps: list[StepShape] = []
    counted: set[int] = set()

    def record(op: TracedOp) -> None:
        own = [p for p in (op.module.parameters() if op.module else ()) if id(p) not in counted]
        counted.update(map(id, own))
        steps.append(_step(op, parameters=sum(parameter.numel() for parameter in own)))

    traced_forward(model, torch.tensor([ids], device=model.head.weight.device), record)
    return ShapeTrace(len(ids), left_out, _axes(checkpoint, steps), tuple(steps))


def _step(op: TracedOp, parameters: int) -> StepShape:
    storages = {_storage(value) for value in op.inputs}
    return StepShape(
        layer=op.layer,
        name=op.name,
        inputs=tuple(map(_shape, op.inputs)),
        outputs=tuple(map(_shape, op.outputs)),
        parameters=parameters,
        flops=op.flops,
        bytes=sum(value.tensor.nbytes for value in op.outputs if _storage(value) not in storages),
    )


def _shape(value: Value) -> Shape:
    return Shape(value.axes, tuple(value.tensor.shape))


def _storage(value: Value) -> int:
    return value.tensor.untyped_storage().data_ptr()


def _axes(checkpoint: Checkpoint, steps: Sequence[StepShape]) -> tuple[Axis, ...]:
    """The letters that appear in the steps."""
    config = checkpoint.metadata.model
    used = {letter for step in steps for shape in step.outputs for letter in shape.axes}
    known = (
        Axis("B", mark("texts"), 1),
        Axis("T", mark("tokens"), steps[0].inputs[0].sizes[1]),
        Axis("C", mark("width"), config.n_embd),
        Axis("H", mark("heads"), config.n_head),
        Axis("K", mark("key/value heads"), config.kv_heads),
        Axis("D", mark("width of a head"), config.head_dim),
        Axis("F", mark("feed-forward"), config.hidden),
        Axis("V", mark("vocabulary"), checkpoint.metadata.vocab_size),
    )
    return tuple(axis for axis in known if axis.letter in used)
