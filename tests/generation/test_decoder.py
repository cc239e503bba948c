"""Decoding token by token, against a forward pass over the whole text."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from minigpt_cli.config.schema import ClassicConfig, ModelConfig, ModernConfig
from minigpt_cli.generation.decoder import Decoder, unit_rms
from minigpt_cli.model.gpt import GPT
from minigpt_cli.model.kernels import apply_rotary, rms_norm
from minigpt_cli.model.positions import RotaryPositions
from tests.helpers import dense_gpt
from tests.helpers.dense_gpt import random_gpt

CLASSIC = ClassicConfig(n_layer=2, n_head=4, n_embd=32, block_size=24)
MODERN = ModernConfig(n_layer=2, n_head=4, n_kv_head=2, n_embd=32, block_size=24)
both_families = pytest.mark.parametrize("config", [CLASSIC, MODERN], ids=["classic", "modern"])


def random_tokens(length: int, seed: int = 1) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(50, (length,), generator=generator).tolist()


@torch.no_grad()
def cached_logits(model: GPT, tokens: list[int], prompt: int) -> Iterator[Tensor]:
    """Scores after the prompt and then after each further token, (V,) each."""
    cache, decoder = model.new_cache(1), Decoder(model)
    yield model(torch.tensor([tokens[:prompt]]), cache=cache)[0, -1]
    for token in tokens[prompt:]:
        yield decoder.read(torch.tensor([token]), cache)[0]


@both_families
@pytest.mark.parametrize("prompt", [1, 2, 23, 24])
def test_within_the_window_cached_logits_equal_reading_everything(
    config: ModelConfig, prompt: int
) -> None:
    model = random_gpt(config)
    tokens = random_tokens(config.block_size)
    with torch.no_grad():
        whole = model(torch.tensor([tokens]))[0]
    for place, logits in enumerate(cached_logits(model, tokens, prompt), start=prompt - 1):
        torch.testing.assert_close(logits, whole[place], rtol=0, atol=1e-5)


@pytest.mark.parametrize("prompt", [1, 10, 24])
def test_past_the_window_modern_logits_equal_a_causal_band_over_the_whole_text(
    prompt: int,
) -> None:
    model = random_gpt(MODERN)
    tokens = random_tokens(400)
    expected = dense_gpt.logits(model, tokens, band=MODERN.block_size)
    for place, logits in enumerate(cached_logits(model, tokens, prompt), start=prompt - 1):
        torch.testing.assert_close(logits.double(), expected[place], rtol=0, atol=1e-4)
    # A band differs from cropping the text: later keys still depend on tokens outside the window.
    cropped = dense_gpt.logits(model, tokens[-MODERN.block_size :])[-1]
    assert (cropped - expected[-1]).abs().max() > 0.01


def test_rotary_positions_stay_exact_far_into_a_text() -> None:
    # In single precision the angle of position 1,000,000 is off by a thirtieth of a radian.
    positions = RotaryPositions(head_dim=16, theta=10_000.0, window=8)
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 8, 16)  # (B, H, T, D)
    cpu = torch.device("cpu")
    near, far = (positions.rotary(start, 8, torch.float32, cpu) for start in (0, 1_000_003))
    scores = [apply_rotary(q, rotary) @ apply_rotary(k, rotary).mT for rotary in (near, far)]
    torch.testing.assert_close(scores[0], scores[1], rtol=0, atol=1e-5)
    assert not torch.allclose(near[1], far[1], atol=0.1)


@both_families
def test_texts_side_by_side_keep_their_own_keys(config: ModelConfig) -> None:
    model = random_gpt(config)
    texts = torch.tensor([random_tokens(20, seed) for seed in range(3)])
    cache, decoder = model.new_cache(3), Decoder(model)
    with torch.no_grad():
        model(texts[:, :7], cache=cache)
        for place in range(7, 20):
            logits = decoder.read(texts[:, place], cache)
        for row in range(3):
            expected = model(texts[row : row + 1])[0, -1]
            torch.testing.assert_close(logits[row], expected, rtol=0, atol=1e-5)


@both_families
def test_two_caches_of_one_model_are_independent(config: ModelConfig) -> None:
    model = random_gpt(config)
    texts = [random_tokens(20, seed) for seed in range(2)]
    streams = [cached_logits(model, text, prompt=5) for text in texts]
    for place, (first, second) in enumerate(zip(*streams, strict=True), start=4):
        for text, logits in zip(texts, (first, second), strict=True):
            expected = dense_gpt.logits(model, text[: place + 1])[-1]
            torch.testing.assert_close(logits.double(), expected, rtol=0, atol=1e-5)


@both_families
def test_a_cache_in_bf16_follows_the_uncached_model(config: ModelConfig) -> None:
    model = random_gpt(config)
    model.compute_dtype = torch.bfloat16
    tokens = random_tokens(24)
    expected = dense_gpt.logits(model, tokens)
    for place, logits in enumerate(cached_logits(model, tokens, prompt=6), start=5):
        error = (logits.double() - expected[place]).norm() / expected[place].norm()
        assert error < 0.03


@both_families
def test_decoding_takes_the_same_memory_at_any_length(config: ModelConfig) -> None:
    model = random_gpt(config)
    cache, decoder = model.new_cache(1), Decoder(model)
    where = (cache.keys.data_ptr(), cache.values.data_ptr(), cache.keys.shape)
    for token in random_tokens(60 if model.has_relative_positions else 24):
        decoder.read(torch.tensor([token]), cache)
    assert (cache.keys.data_ptr(), cache.values.data_ptr(), cache.keys.shape) == where
    assert (
        cache.keys.shape
        == cache.values.shape
        == (2, 1, 2 if model.has_relative_positions else 4, 24, 8)
    )


@pytest.mark.parametrize(
    "config",
    [
        MODERN.model_copy(update={"n_kv_head": 1}),
        MODERN.model_copy(update={"tie_embeddings": True}),
        CLASSIC.model_copy(update={"bias": False}),
        CLASSIC.model_copy(update={"qkv_bias": False, "activation": "relu"}),
        CLASSIC.model_copy(update={"tie_embeddings": True}),
    ],
)
def test_every_kind_of_model_decodes_as_without_a_cache(config: ModelConfig) -> None:
    model = random_gpt(config)
    tokens = random_tokens(24)
    expected = dense_gpt.logits(model, tokens)
    for place, logits in enumerate(cached_logits(model, tokens, prompt=6), start=5):
        torch.testing.assert_close(logits.double(), expected[place], rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_unit_rms_equals_rms_norm(scale: float) -> None:
    torch.manual_seed(0)
    x = scale * torch.randn(3, 5, 16)
    torch.testing.assert_close(unit_rms(x), rms_norm(x, torch.ones(16)), rtol=1e-5, atol=1e-6)


@both_families
def test_a_cache_counts_the_tokens_it_has_read(config: ModelConfig) -> None:
    model = random_gpt(config)
    cache, decoder = model.new_cache(2), Decoder(model)
    assert cache.length == 0
    assert model(torch.zeros(2, 7, dtype=torch.int64), cache=cache).shape == (2, 1, 50)
    assert cache.length == 7
    for total in (8, 9):
        assert decoder.read(torch.zeros(2, dtype=torch.int64), cache).shape == (2, 50)
        assert cache.length == total
