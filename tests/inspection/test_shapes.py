"""The shapes and costs of a forward pass, counted another trace."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from minigpt_cli.config.schema import ClassicConfig, ModelConfig, ModernConfig
from minigpt_cli.inspection.shapes import trace_shapes
from minigpt_cli.model.flops import forward_flops_per_token
from minigpt_cli.runs.checkpoint import load_checkpoint
from minigpt_cli.tokenizer.byte import ByteTokenizer
from tests.helpers.checkpoints import checkpoint_of
from tests.helpers.dense_gpt import random_gpt

SIZES: dict[str, Any] = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 16}


@pytest.mark.parametrize(
    "config",
    [
        ClassicConfig(**SIZES),
        ClassicConfig(**SIZES, tie_embeddings=True),
        ModernConfig(**SIZES, n_kv_head=1),
        ModernConfig(**SIZES, tie_embeddings=True),
    ],
)
def test_parameters_and_flops_of_a_full_window_are_the_models(config: ModelConfig) -> None:
    model = random_gpt(config, 256)
    trace = trace_shapes(checkpoint_of(model, ByteTokenizer()), None)
    assert trace.tokens == 16
    assert sum(step.parameters for step in trace.steps) == sum(
        p.numel() for p in model.parameters()
    )
    assert sum(step.flops for step in trace.steps) == 16 * forward_flops_per_token(config, 256)


def test_every_input_is_an_earlier_output() -> None:
    trace = trace_shapes(
        checkpoint_of(random_gpt(ModernConfig(**SIZES), 256), ByteTokenizer()), "ferry"
    )
    given = {trace.steps[0].inputs[0]}
    for step in trace.steps:
        moved = {tuple(sorted(shape.sizes)) for shape in given}
        assert {tuple(sorted(shape.sizes)) for shape in step.inputs} <= moved
        given |= set(step.outputs)
    layers = [step.layer for step in trace.steps]
    assert [b for a, b in pairwise(layers) if a != b] == [0, 1, None]
    assert trace.steps[-1].outputs[0].sizes == (1, 5, 256)


def test_only_new_tensors_take_memory() -> None:
    trace = trace_shapes(
        checkpoint_of(random_gpt(ModernConfig(**SIZES), 256), ByteTokenizer()), "ferry"
    )
    by_name = {step.name: step for step in trace.steps if step.layer in (None, 0)}
    assert by_name["attention.heads"].bytes == 0
    assert by_name["attention.qkv"].bytes == 4 * 5 * 96
    assert by_name["attention.weights"].bytes == 4 * 4 * 5 * 5
    assert by_name["head"].bytes == 4 * 5 * 256


def test_axes_have_their_sizes(trained_home: Path) -> None:
    trained = load_checkpoint(trained_home / "runs" / "tiny" / "checkpoint.safetensors")
    trace = trace_shapes(trained, "The old")
    sizes = {axis.letter: axis.size for axis in trace.axes}
    assert sizes == {
        "B": 1, "T": 7, "C": 32, "H": 2, "K": 2, "D": 16, "F": 128,
        "V": trained.tokenizer.vocab_size,
    }  # fmt: skip
