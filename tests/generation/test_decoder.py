"""Decoding token by token, against a forward pass over the whole text."""

import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from minigpt_cli.config.schema import ClassicConfig, ModelConfig, ModernConfig
from minigpt_cli.generation.compiled import CompiledDecoder, decoder_for
from minigpt_cli.generation.decoder import Decoder, unit_rms
from minigpt_cli.model.gpt import GPT
from minigpt_cli.model.kernels import apply_rotary, rms_norm
from minigpt_cli.model.positions import RotaryPositions
from minigpt_cli.native.library import library
from tests.helpers import dense_gpt
from tests.helpers.dense_gpt import random_gpt

CLASSIC = ClassicConfig(n_layer=2, n_head=4, n_embd=32, block_size=24)
MODERN = ModernConfig(n_layer=2, n_head=4, n_kv_head=2, n_embd=32, block_size=24)
both_families = pytest.mark.parametrize("config", [CLASSIC, MODERN], ids=["classic", "modern"])
MakeDecoder = Callable[[GPT], Decoder | CompiledDecoder]


def compiled(model: GPT) -> CompiledDecoder:
    loaded = library()
    if loaded is None:
        pytest.skip("needs a C compiler")
    return CompiledDecoder(model, loaded)


@pytest.fixture(params=[Decoder, compiled], ids=["plain", "compiled"])
def make_decoder(request: pytest.FixtureRequest) -> MakeDecoder:
    make: MakeDecoder = request.param
    return make


def random_tokens(length: int, seed: int = 1) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(50, (length,), generator=generator).tolist()


@torch.no_grad()
def cached_logits(
    model: GPT, tokens: list[int], prompt: int, make_decoder: MakeDecoder
) -> Iterator[Tensor]:
    """Scores after the prompt and then after each further token, (V,) each."""
    decoder = make_decoder(model)
    cache = decoder.new_cache(1)
    yield model(torch.tensor([tokens[:prompt]]), cache=cache)[0, -1]
    for token in tokens[prompt:]:
        yield decoder.read(torch.tensor([token]), cache)[0]


@both_families
@pytest.mark.parametrize("prompt", [1, 2, 23, 24])
def test_within_the_window_cached_logits_equal_reading_everything(
    make_decoder: MakeDecoder, config: ModelConfig, prompt: int
) -> None:
    model = random_gpt(config)
    tokens = random_tokens(config.block_size)
    with torch.no_grad():
        whole = model(torch.tensor([tokens]))[0]
    for place, logits in enumerate(
        cached_logits(model, tokens, prompt, make_decoder), start=prompt - 1
    ):
        torch.testing.assert_close(logits, whole[place], rtol=0, atol=1e-5)


@pytest.mark.parametrize("prompt", [1, 10, 24])
def test_past_the_window_modern_logits_equal_a_causal_band_over_the_whole_text(
    make_decoder: MakeDecoder,
    prompt: int,
) -> None:
    model = random_gpt(MODERN)
    tokens = random_tokens(400)
    expected = dense_gpt.logits(model, tokens, band=MODERN.block_size)
    for place, logits in enumerate(
        cached_logits(model, tokens, prompt, make_decoder), start=prompt - 1
    ):
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
def test_texts_side_by_side_keep_their_own_keys(
    make_decoder: MakeDecoder, config: ModelConfig
) -> None:
    model = random_gpt(config)
    texts = torch.tensor([random_tokens(20, seed) for seed in range(3)])
    decoder = make_decoder(model)
    cache = decoder.new_cache(3)
    with torch.no_grad():
        model(texts[:, :7], cache=cache)
        for place in range(7, 20):
            logits = decoder.read(texts[:, place], cache)
        for row in range(3):
            expected = model(texts[row : row + 1])[0, -1]
            torch.testing.assert_close(logits[row], expected, rtol=0, atol=1e-5)


@both_families
def test_two_caches_of_one_model_are_independent(
    make_decoder: MakeDecoder, config: ModelConfig
) -> None:
    model = random_gpt(config)
    texts = [random_tokens(20, seed) for seed in range(2)]
    streams = [cached_logits(model, text, 5, make_decoder) for text in texts]
    for place, (first, second) in enumerate(zip(*streams, strict=True), start=4):
        for text, logits in zip(texts, (first, second), strict=True):
            expected = dense_gpt.logits(model, text[: place + 1])[-1]
            torch.testing.assert_close(logits.double(), expected, rtol=0, atol=1e-5)


@both_families
def test_a_cache_in_bf16_follows_the_uncached_model(
    make_decoder: MakeDecoder, config: ModelConfig
) -> None:
    model = random_gpt(config)
    model.compute_dtype = torch.bfloat16
    tokens = random_tokens(24)
    expected = dense_gpt.logits(model, tokens)
    for place, logits in enumerate(
        cached_logits(model, tokens, prompt=6, make_decoder=make_decoder), start=5
    ):
        error = (logits.double() - expected[place]).norm() / expected[place].norm()
        assert error < 0.03


@both_families
def test_decoding_takes_the_same_memory_at_any_length(
    make_decoder: MakeDecoder, config: ModelConfig
) -> None:
    model = random_gpt(config)
    decoder = make_decoder(model)
    cache = decoder.new_cache(1)
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
def test_every_kind_of_model_decodes_as_without_a_cache(
    make_decoder: MakeDecoder, config: ModelConfig
) -> None:
    model = random_gpt(config)
    tokens = random_tokens(24)
    expected = dense_gpt.logits(model, tokens)
    for place, logits in enumerate(
        cached_logits(model, tokens, prompt=6, make_decoder=make_decoder), start=5
    ):
        torch.testing.assert_close(logits.double(), expected[place], rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_unit_rms_equals_rms_norm(scale: float) -> None:
    torch.manual_seed(0)
    x = scale * torch.randn(3, 5, 16)
    torch.testing.assert_close(unit_rms(x), rms_norm(x, torch.ones(16)), rtol=1e-5, atol=1e-6)


@both_families
def test_a_cache_counts_the_tokens_it_has_read(
    make_decoder: MakeDecoder, config: ModelConfig
) -> None:
    model = random_gpt(config)
    decoder = make_decoder(model)
    cache = decoder.new_cache(2)
    assert cache.length == 0
    assert model(torch.zeros(2, 7, dtype=torch.int64), cache=cache).shape == (2, 1, 50)
    assert cache.length == 7
    for total in (8, 9):
        assert decoder.read(torch.zeros(2, dtype=torch.int64), cache).shape == (2, 50)
        assert cache.length == total


@both_families
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_texts_depend_neither_on_their_neighbors_nor_on_threads(
    config: ModelConfig, dtype: torch.dtype
) -> None:
    model = random_gpt(config)
    model.compute_dtype = dtype
    texts = torch.tensor([random_tokens(20, seed) for seed in range(21)])  # two tiles, five alone

    def last_logits(rows: Tensor) -> Tensor:
        decoder = compiled(model)
        cache = decoder.new_cache(len(rows))
        return [decoder.read(rows[:, place], cache) for place in range(20)][-1]

    threads = torch.get_num_threads()
    together = last_logits(texts)
    try:
        torch.set_num_threads(3)
        assert torch.equal(together, last_logits(texts))
    finally:
        torch.set_num_threads(threads)
    for row in range(21):
        assert torch.equal(together[row], last_logits(texts[row : row + 1])[0])


@pytest.mark.parametrize("layer", ["attention.qkv", "attention.proj", "expand", "down"])
@pytest.mark.parametrize("activation", ["swiglu", "relu", "gelu"])
def test_compiled_values_that_are_not_finite_are_not_hidden(activation: str, layer: str) -> None:
    classic = CLASSIC.model_copy(update={"activation": activation})
    model = random_gpt(MODERN if activation == "swiglu" else classic)
    with torch.no_grad():
        model.get_parameter(f"blocks.0.{layer}.weight")[3, 3] = float("nan")
    decoder = compiled(model)
    cache = decoder.new_cache(1)
    decoder.read(torch.tensor([1]), cache)
    assert decoder.read(torch.tensor([2]), cache).isnan().any()


@pytest.mark.parametrize("sizes", [(3, 24, 20), (2, 10, 36), (1, 48, 50), (5, 40, 130)])
def test_compiled_sizes_that_fill_no_vector(sizes: tuple[int, int, int]) -> None:
    heads, width, hidden = sizes
    model = random_gpt(
        ModernConfig(
            n_layer=2, n_head=heads, n_embd=width, head_size=6, n_hidden=hidden, block_size=24
        ),
        53,
    )  # fmt: skip
    tokens = random_tokens(24)
    expected = dense_gpt.logits(model, tokens)
    for place, logits in enumerate(cached_logits(model, tokens, 6, compiled), start=5):
        torch.testing.assert_close(logits.double(), expected[place], rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("window", [39, 48])  # sixteen keys at a time, and a rest or none
@pytest.mark.parametrize("size", [8, 16, 32, 40, 64, 80, 128, 144])
def test_compiled_heads_of_any_size(size: int, window: int, dtype: torch.dtype) -> None:
    model = random_gpt(
        ModernConfig(n_layer=1, n_head=2, n_kv_head=1, n_embd=48, head_size=size, block_size=window)
    )
    tokens = random_tokens(60)
    expected = dense_gpt.logits(model, tokens, band=window)
    model.compute_dtype = dtype
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    for place, logits in enumerate(cached_logits(model, tokens, 1, compiled)):
        error = (logits.double() - expected[place]).norm() / expected[place].norm()
        assert error < tolerance


def test_a_model_that_the_library_does_not_know_is_decoded_plainly() -> None:
    odd = random_gpt(ModernConfig(n_layer=1, n_head=3, n_embd=33, head_size=8))
    assert type(decoder_for(odd)) is Decoder


@pytest.mark.parametrize("token", [-1, 50, 2**40])
def test_a_token_outside_the_vocabulary_is_refused(make_decoder: MakeDecoder, token: int) -> None:
    decoder = make_decoder(random_gpt(MODERN))
    cache = decoder.new_cache(2)
    with pytest.raises(IndexError):
        decoder.read(torch.tensor([1, token]), cache)
    assert cache.length == 0


def test_compiled_with_more_threads_than_panels_and_a_window_of_one() -> None:
    config = ModernConfig(n_layer=2, n_head=2, n_embd=6, head_size=2, n_hidden=2, block_size=1)
    model = random_gpt(config, 3)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(9)
        decoder, plain = compiled(model), Decoder(model)
        caches = decoder.new_cache(1), plain.new_cache(1)
        for token in (0, 2, 1, 1, 0):
            ours = decoder.read(torch.tensor([token]), caches[0])
            expected = plain.read(torch.tensor([token]), caches[1])
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    finally:
        torch.set_num_threads(threads)


def test_compiled_a_wide_model_needs_little_stack() -> None:
    config = ModernConfig(n_layer=1, n_head=1, n_embd=200_000, head_size=2, n_hidden=2)
    decoder = compiled(random_gpt(config, 2))
    cache, read = decoder.new_cache(1), []
    before = threading.stack_size(1 << 19)  # two rows would not fit
    try:
        thread = threading.Thread(
            target=lambda: read.append(decoder.read(torch.tensor([1]), cache))
        )
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert read[0].isfinite().all()
