"""The cache: what decoding remembers, and what it lets go."""

from collections.abc import Iterator

import dense_gpt
import pytest
import torch
from dense_gpt import random_gpt
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from minigpt_cli.config import ClassicConfig, ModelConfig, ModernConfig
from minigpt_cli.kv_cache import LayerCache
from minigpt_cli.model import GPT, Rotary, rotate

CLASSIC = ClassicConfig(n_layer=2, n_head=4, n_embd=32, block_size=24)
MODERN = ModernConfig(n_layer=2, n_head=4, n_kv_head=2, n_embd=32, block_size=24)
both_families = pytest.mark.parametrize("config", [CLASSIC, MODERN], ids=["classic", "modern"])


def random_tokens(length: int, seed: int = 1) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(50, (length,), generator=generator).tolist()


@torch.no_grad()
def cached_logits(model: GPT, tokens: list[int], prompt: int) -> Iterator[Tensor]:
    """Scores after the prompt and then after each further token, (V,) each."""
    cache = model.new_cache(1)
    yield model(torch.tensor([tokens[:prompt]]), cache=cache)[0, -1]
    for token in tokens[prompt:]:
        yield model(torch.tensor([[token]]), cache=cache)[0, -1]


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
    # The band is not the same as cropping and starting again: old keys still echo in later ones.
    cropped = dense_gpt.logits(model, tokens[-MODERN.block_size :])[-1]
    assert (cropped - expected[-1]).abs().max() > 0.01


def test_rotary_positions_stay_exact_far_into_a_text() -> None:
    # In single precision the angle of position 1,000,000 is off by a thirtieth of a radian.
    rotary = Rotary(head_dim=16, theta=10_000.0, window=8)
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 8, 16)  # (B, H, T, D)
    cpu = torch.device("cpu")
    near, far = (rotary(start, 8, torch.float32, cpu) for start in (0, 1_000_003))
    scores = [rotate(q, turns) @ rotate(k, turns).mT for turns in (near, far)]
    torch.testing.assert_close(scores[0], scores[1], rtol=0, atol=1e-5)
    assert not torch.allclose(near[1], far[1], atol=0.1)


@both_families
def test_texts_side_by_side_keep_their_own_keys(config: ModelConfig) -> None:
    model = random_gpt(config)
    texts = torch.tensor([random_tokens(20, seed) for seed in range(3)])
    cache = model.new_cache(3)
    with torch.no_grad():
        model(texts[:, :7], cache=cache)
        for place in range(7, 20):
            logits = model(texts[:, place : place + 1], cache=cache)
        for row in range(3):
            expected = model(texts[row : row + 1])[0, -1]
            torch.testing.assert_close(logits[row, -1], expected, rtol=0, atol=1e-5)


@both_families
def test_two_caches_of_one_model_do_not_meet(config: ModelConfig) -> None:
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


@given(prompt=st.integers(1, 5), steps=st.integers(0, 12))
def test_the_ring_holds_exactly_the_last_window_of_tokens(prompt: int, steps: int) -> None:
    window = 5
    cache = LayerCache((1, 1, window, 1), torch.float32, torch.device("cpu"))
    written = 0
    for new in [prompt] + [1] * steps:
        numbers = torch.arange(written, written + new, dtype=torch.float32).view(1, 1, new, 1)
        keys, values = cache.write(numbers, -numbers)
        written += new
        held = set(range(max(0, written - window), written))
        assert {int(number) for number in keys.flatten()} == held
        assert keys.size(2) == len(held)
        assert torch.equal(values, -keys)  # each value beside its own key


def test_decoding_takes_no_more_memory_the_longer_it_goes() -> None:
    cache = LayerCache((1, 1, 5, 1), torch.float32, torch.device("cpu"))
    one = torch.ones(1, 1, 1, 1)
    storages = {
        (held.untyped_storage().data_ptr(), held.untyped_storage().nbytes())
        for _ in range(50)
        for held in cache.write(one, one)
    }
    assert sorted(size for _, size in storages) == [5 * 4, 5 * 4]


@both_families
def test_a_cache_counts_the_tokens_it_has_read(config: ModelConfig) -> None:
    model = random_gpt(config)
    cache = model.new_cache(2)
    assert cache.length == 0
    for new, total in ((7, 7), (1, 8), (1, 9)):
        logits = model(torch.zeros(2, new, dtype=torch.int64), cache=cache)
        assert cache.length == total
        assert logits.shape == (2, 1, 50)
