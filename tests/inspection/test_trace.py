"""The traced forward pass computes what the model computes."""

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minigpt_cli.config.schema import ClassicConfig, ModelConfig, ModernConfig
from minigpt_cli.inspection.trace import WEIGHTS, TracedOp, traced_forward
from minigpt_cli.model.flops import forward_flops_per_token
from tests.helpers.dense_gpt import random_gpt

SIZES: dict[str, Any] = {"n_layer": 3, "n_head": 4, "n_embd": 32, "block_size": 24}
FAMILIES: dict[str, ModelConfig] = {
    "classic": ClassicConfig(**SIZES, dropout=0.3),
    "classic-bare": ClassicConfig(**SIZES, activation="relu", bias=False, tie_embeddings=True),
    "modern": ModernConfig(**SIZES, dropout=0.3),
    "modern-grouped": ModernConfig(**SIZES, n_kv_head=2, n_hidden=40, tie_embeddings=True),
}
every_family = pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)


@every_family
@pytest.mark.parametrize("length", [1, 7, 24])
def test_logits_are_those_of_the_fast_path(config: ModelConfig, length: int) -> None:
    model = random_gpt(config)
    idx = torch.randint(50, (2, length), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model(idx)
    torch.testing.assert_close(
        traced_forward(model, idx, lambda _: None), expected, atol=1e-4, rtol=0
    )


@every_family
def test_attention_weights_are_distributions_over_the_tokens_read_so_far(
    config: ModelConfig,
) -> None:
    found = []

    def record(op: TracedOp) -> None:
        if op.name == WEIGHTS:
            found.append(op.outputs[0].tensor)

    traced_forward(random_gpt(config), torch.arange(24)[None], record)
    assert [weights.shape for weights in found] == [(1, 4, 24, 24)] * 3
    for weights in found:
        torch.testing.assert_close(weights.sum(-1), torch.ones(1, 4, 24))
        assert not weights.triu(1).any()
        assert weights.diagonal(dim1=-2, dim2=-1).all()


@every_family
def test_flops_are_those_that_pytorch_counts_in_the_model(config: ModelConfig) -> None:
    model = random_gpt(config)
    steps: list[TracedOp] = []
    window = torch.zeros(1, config.block_size, dtype=torch.long)
    traced_forward(model, window, steps.append)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(window)
    total = sum(step.flops for step in steps)
    assert total == counter.get_total_flops()
    assert total == config.block_size * forward_flops_per_token(config, 50)


@every_family
def test_each_steps_axes_are_the_sizes_of_its_tensors(config: ModelConfig) -> None:
    model = random_gpt(config)
    steps: list[TracedOp] = []
    traced_forward(model, torch.zeros(2, 5, dtype=torch.long), steps.append)
    letters = {"B": 2, "T": 5, "C": 32, "H": 4, "D": 8, "V": 50}
    if isinstance(config, ModernConfig):
        letters |= {"K": config.kv_heads, "F": config.hidden}
    sizes = {letter: str(size) for letter, size in letters.items()}
    for step in steps:
        for value in (*step.inputs, *step.outputs):
            # "(H+2K)D" is (4+2*2)*8: a number before a letter or a bracket multiplies it.
            products = value.axes.replace("2K", "2*K").replace(")D", ")*D")
            for factor in ("2F", "3C", "4C"):
                products = products.replace(factor, f"{factor[0]}*{factor[1]}")
            numbers = "".join(sizes.get(char, char) for char in products).split()
            assert [eval(number) for number in numbers] == list(value.tensor.shape)


def test_tracing_does_not_change_the_model() -> None:
    model = random_gpt(FAMILIES["modern"]).train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    traced_forward(model, torch.zeros(1, 5, dtype=torch.long), lambda _: None)
    assert model.training
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
