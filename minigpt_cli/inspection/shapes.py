"""The shapes of a text on its way through a model, and what each step costs."""

from dataclasses import dataclass

import torch

from minigpt_cli.config.schema import ModernConfig
from minigpt_cli.device import LESS_MEMORY, reraise_out_of_memory
from minigpt_cli.inspection.tokens import window
from minigpt_cli.inspection.trace import Step, Value, traced_forward
from minigpt_cli.runs.checkpoint import Checkpoint


@dataclass(frozen=True)
class Axis:
    """What a letter in a shape stands for."""

    letter: str
    meaning: str
    size: int


@dataclass(frozen=True)
class Shape:
    """A tensor's axes, `B T C`, and their sizes."""

    axes: str
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class StepShape:
    """What one step takes, gives and costs."""

    layer: int | None
    """From 0; None outside the blocks."""
    name: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    parameters: int
    """Those of a tied head are the embedding's and counted there."""
    flops: int
    """Multiplications and additions of matrix products, masked scores included."""
    bytes: int
    """Of memory that the output takes; a view of the input takes none."""


@dataclass(frozen=True)
class ShapeTrace:
    """All steps of a text, in order."""

    tokens: int
    left_out: int
    """Tokens before them that the model does not see."""
    axes: tuple[Axis, ...]
    steps: tuple[StepShape, ...]


@reraise_out_of_memory(LESS_MEMORY)
def trace_shapes(checkpoint: Checkpoint, text: str | None) -> ShapeTrace:
    """Reads a text and notes the shapes on its way.

    Args:
        checkpoint: the model and its tokenizer.
        text: of a long one, the last `block_size` tokens; None stands for a full window.

    Raises:
        ConfigError: the text is empty.
        TokenizerError: it holds characters the model never saw.
    """
    model, left_out = checkpoint.model, 0
    ids = [0] * model.config.block_size
    if text is not None:
        read = window(checkpoint, text)
        ids, left_out = list(read.ids), read.left_out
    steps: list[StepShape] = []
    counted: set[int] = set()

    def watch(step: Step) -> None:
        own = [p for p in (step.module.parameters() if step.module else ()) if id(p) not in counted]
        counted.update(map(id, own))
        parameters = sum(parameter.numel() for parameter in own)
        steps.append(_facts(step, parameters))

    traced_forward(model, torch.tensor([ids], device=model.head.weight.device), watch)
    return ShapeTrace(len(ids), left_out, _axes(checkpoint, len(ids)), tuple(steps))


def _facts(step: Step, parameters: int) -> StepShape:
    there = {_place(value) for value in step.inputs}
    return StepShape(
        layer=step.layer,
        name=step.name,
        inputs=tuple(map(_shape, step.inputs)),
        outputs=tuple(map(_shape, step.outputs)),
        parameters=parameters,
        flops=step.flops,
        bytes=sum(value.tensor.nbytes for value in step.outputs if _place(value) not in there),
    )


def _shape(value: Value) -> Shape:
    return Shape(value.axes, tuple(value.tensor.shape))


def _place(value: Value) -> int:
    return value.tensor.untyped_storage().data_ptr()


def _axes(checkpoint: Checkpoint, tokens: int) -> tuple[Axis, ...]:
    config = checkpoint.metadata.model
    axes = [
        Axis("B", "texts", 1),
        Axis("T", "tokens", tokens),
        Axis("C", "width", config.n_embd),
        Axis("H", "heads", config.n_head),
    ]
    if isinstance(config, ModernConfig):
        axes.append(Axis("K", "key/value heads", config.kv_heads))
    axes.append(Axis("D", "width of a head", config.head_dim))
    if isinstance(config, ModernConfig):
        axes.append(Axis("F", "feed-forward", config.hidden))
    return (*axes, Axis("V", "vocabulary", checkpoint.metadata.vocab_size))
