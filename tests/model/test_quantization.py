"""Quantized weights are close to the originals, and model and decoder use the same ones."""

import pytest
import torch

from minigpt_cli.config.schema import ClassicConfig, ModelConfig, ModernConfig
from minigpt_cli.generation.decoder import Decoder
from minigpt_cli.model.gpt import GPT
from minigpt_cli.model.layers import Linear
from minigpt_cli.model.quantization import quantize_int8
from tests.helpers.dense_gpt import random_gpt

CLASSIC = ClassicConfig(n_layer=2, n_head=4, n_embd=64, block_size=24)
MODERN = ModernConfig(n_layer=2, n_head=4, n_kv_head=2, n_embd=64, block_size=24)
both_families = pytest.mark.parametrize("config", [CLASSIC, MODERN], ids=["classic", "modern"])


def linears(model: GPT) -> dict[str, Linear]:
    return {name: m for name, m in model.named_modules() if isinstance(m, Linear)}


@both_families
def test_every_weight_is_within_half_a_step_of_what_it_was(config: ModelConfig) -> None:
    model = random_gpt(config)
    before = {name: linear.weight.detach().clone() for name, linear in linears(model).items()}
    quantize_int8(model)
    for name, linear in linears(model).items():
        assert linear.int8 is not None
        numbers, scale = linear.int8
        step = scale.float()[:, None]
        assert torch.equal(linear.weight, numbers.float() * step)
        # The largest may be slightly above 127 steps, since the scale itself is rounded.
        assert ((linear.weight - before[name]).abs() <= 1.01 * step).all()
        assert ((linear.weight - before[name]).abs() <= 0.501 * step).float().mean() > 0.98
        assert numbers.abs().amax(1).min() >= 126


@both_families
@pytest.mark.parametrize("tied", [False, True])
def test_the_decoder_scores_as_the_quantized_model_does(config: ModelConfig, tied: bool) -> None:
    model = random_gpt(config.model_copy(update={"tie_embeddings": tied}))
    exact = random_gpt(config.model_copy(update={"tie_embeddings": tied}))
    quantize_int8(model)
    model.compute_dtype = torch.float32  # the exact answer
    tokens = torch.randint(50, (20,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole, unquantized = model(tokens[None])[0], exact(tokens[None])[0]
        cache, decoder = model.new_cache(1), Decoder(model)
        model(tokens[None, :5], cache=cache)
        for place in range(5, 20):
            logits = decoder.read(tokens[place : place + 1], cache)[0]
            error = (logits - whole[place]).norm() / whole[place].norm()
            assert error < 0.02  # activations are bf16 there
    assert 0 < (whole - unquantized).norm() / unquantized.norm() < 0.05


@pytest.mark.parametrize("width", [{"n_embd": 40}, {"n_embd": 64, "n_hidden": 100}])
def test_widths_that_the_kernel_does_not_take_are_decoded_all_the_same(
    width: dict[str, int],
) -> None:
    model = random_gpt(MODERN.model_copy(update={"n_head": 2, **width}))
    quantize_int8(model)
    model.compute_dtype = torch.float32  # the exact answer
    tokens = torch.randint(50, (20,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = model(tokens[None])[0]
        cache, decoder = model.new_cache(1), Decoder(model)
        model(tokens[None, :5], cache=cache)
        for place in range(5, 20):
            logits = decoder.read(tokens[place : place + 1], cache)[0]
            assert (logits - whole[place]).norm() / whole[place].norm() < 0.03


def test_quantizing_a_tied_head_leaves_the_embedding_unchanged() -> None:
    model = random_gpt(MODERN.model_copy(update={"tie_embeddings": True}))
    before = model.token_embedding.weight.detach().clone()
    quantize_int8(model)
    assert torch.equal(model.token_embedding.weight, before)
    assert not torch.equal(model.head.weight, before)


def test_a_row_of_zeros_stays_zero() -> None:
    model = random_gpt(MODERN)
    weight = model.get_parameter("blocks.0.down.weight")
    with torch.no_grad():
        weight[3] = 0
    quantize_int8(model)
    assert not weight[3].any()
