"""What is written is what the model says: against recomputation, and draws against arithmetic."""

import math
import random
from collections import Counter

import dense_gpt
import numpy as np
import pytest
import torch
from dense_gpt import random_gpt
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from minigpt_cli.config import ClassicConfig, ModelConfig, ModernConfig
from minigpt_cli.errors import ConfigError, TokenizerError
from minigpt_cli.generation import (
    Sampling,
    generate,
    generate_tokens,
    keep_top_k,
    keep_top_p,
    next_token_probabilities,
    prompt_ids,
    sample,
)
from minigpt_cli.model import GPT
from minigpt_cli.tokenizer import ByteTokenizer, CharTokenizer

GREEDY = Sampling(temperature=0)
CLASSIC = ClassicConfig(n_layer=2, n_head=4, n_embd=32, block_size=24)
MODERN = ModernConfig(n_layer=2, n_head=4, n_kv_head=2, n_embd=32, block_size=24)
both_families = pytest.mark.parametrize("config", [CLASSIC, MODERN], ids=["classic", "modern"])


def continuation(
    model: GPT, prompt: list[int], length: int, sampling: Sampling | None = None
) -> list[int]:
    return [tokens[0] for tokens in generate_tokens(model, prompt, length, sampling)]


# --- Against recomputation ------------------------------------------------------------------


@both_families
@pytest.mark.parametrize("prompt", [[3], [3, 1, 4, 1, 5]], ids=["short", "longer"])
def test_within_the_window_greedy_text_is_the_uncached_one(
    config: ModelConfig, prompt: list[int]
) -> None:
    config = config.model_copy(update={"block_size": 200})
    model = random_gpt(config, 300, seed=2)
    text = list(prompt)
    while len(text) < config.block_size:
        with torch.no_grad():
            text.append(int(model(torch.tensor([text]))[0, -1].argmax()))
    written = continuation(model, prompt, config.block_size - len(prompt), GREEDY)
    assert prompt + written == text
    assert len(set(written)) > 5  # not one token over and over


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_past_the_window_modern_writes_what_a_causal_band_over_the_whole_text_says(
    seed: int,
) -> None:
    model = random_gpt(MODERN, 300, seed)
    prompt = [3, 1, 4]
    written = continuation(model, prompt, 300, GREEDY)
    scores = dense_gpt.logits(model, prompt + written, band=MODERN.block_size)
    assert written == scores.argmax(1)[len(prompt) - 1 : -1].tolist()
    cropped = [
        int(dense_gpt.logits(model, (prompt + written[:i])[-MODERN.block_size :])[-1].argmax())
        for i in range(100)
    ]
    assert written[:100] != cropped  # the two are not the same thing


@pytest.mark.parametrize("block_size", [1, 2, 7, 24])
@pytest.mark.parametrize("prompt", [[3], list(range(24))], ids=["short", "whole window"])
def test_past_the_window_classic_writes_what_rereading_the_last_half_window_says(
    block_size: int, prompt: list[int]
) -> None:
    model = random_gpt(CLASSIC.model_copy(update={"block_size": block_size}), 300, seed=5)
    context = prompt[-block_size:]
    expected = []
    for _ in range(150):
        if len(context) > block_size:
            context = context[-max(1, block_size // 2) :]
        expected.append(int(dense_gpt.logits(model, context)[-1].argmax()))
        context = [*context, expected[-1]]
    assert continuation(model, prompt, 150, GREEDY) == expected


@both_families
def test_of_a_longer_prompt_the_last_window_is_read(config: ModelConfig) -> None:
    model = random_gpt(config)
    prompt = [i * i % 50 for i in range(60)]
    written = continuation(model, prompt, 30, GREEDY)
    assert written == continuation(model, prompt[-24:], 30, GREEDY)
    assert written != continuation(model, prompt[-23:], 30, GREEDY)


@both_families
def test_samples_side_by_side_write_what_each_would_alone(config: ModelConfig) -> None:
    model = random_gpt(config)
    sampling = Sampling(temperature=1.0, top_k=40, seed=5)
    eight, four, one = (
        list(zip(*generate_tokens(model, [7, 8], 60, sampling, num_samples=n), strict=True))
        for n in (8, 4, 1)
    )
    assert eight[:4] == four
    assert four[:1] == one
    assert len(set(eight)) == 8


@both_families
def test_the_same_seed_writes_the_same_text_and_another_one_another(config: ModelConfig) -> None:
    model = random_gpt(config)
    first, again, other = (
        continuation(model, [7], 60, Sampling(temperature=1.0, seed=seed)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_sampled_text_follows_the_models_probabilities() -> None:
    # One step of many samples, against the distribution the model gives after the prompt.
    model = random_gpt(MODERN, vocab_size=12)
    expected = dense_gpt.logits(model, [1, 2, 3])[-1].softmax(0)
    (drawn,) = generate_tokens(model, [1, 2, 3], 1, Sampling(temperature=1.0), num_samples=5000)
    assert_drawn_from(drawn, expected)


@both_families
def test_generating_leaves_every_global_random_state_alone(config: ModelConfig) -> None:
    model = random_gpt(config)
    torch.manual_seed(1)
    states = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    continuation(model, [7], 40, Sampling(temperature=1.0))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]


@both_families
def test_generating_changes_neither_weights_nor_gradients(config: ModelConfig) -> None:
    model = random_gpt(config)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    continuation(model, [7], 40)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    model(torch.tensor([[1, 2]]), torch.tensor([[2, 3]])).backward()  # and training can go on


# --- Text -----------------------------------------------------------------------------------


def writer_of(text: bytes) -> GPT:
    """A model that, greedily, writes these distinct bytes round and round."""
    assert len(set(text)) == len(text)
    model = GPT(ModernConfig(n_layer=1, n_head=2, n_embd=256, block_size=8), 256).eval()
    with torch.no_grad():
        # Untrained blocks pass their input on, so only the embedding and the head speak.
        model.token_embedding.weight.copy_(torch.eye(256))
        model.head.weight.zero_()
        for here, there in zip(text, text[1:] + text[:1], strict=True):
            model.head.weight[there, here] = 1.0
    return model


def test_characters_of_several_bytes_stream_whole() -> None:
    text = "é☃𝄞!"  # two, three, four and one byte
    pieces = list(generate(writer_of(text.encode()), ByteTokenizer(), "!", 30, GREEDY))
    assert "".join(pieces) == text * 3
    assert not any("\ufffd" in piece for piece in pieces)
    assert {piece for piece in pieces if piece} == set(text)


@pytest.mark.parametrize("length", range(1, 11))
def test_text_cut_off_within_a_character_ends_as_decoding_it_whole_does(length: int) -> None:
    text = "é☃𝄞!"
    pieces = list(generate(writer_of(text.encode()), ByteTokenizer(), "!", length, GREEDY))
    assert "".join(pieces) == text.encode()[:length].decode(errors="replace")


@pytest.mark.parametrize("seed", range(5))
def test_streamed_pieces_joined_are_the_decoded_whole(seed: int) -> None:
    # A random model over bytes writes broken characters most of the time.
    model, tokenizer = random_gpt(MODERN, vocab_size=256), ByteTokenizer()
    sampling = Sampling(temperature=1.0, seed=seed)
    pieces = list(generate(model, tokenizer, "é", 200, sampling))
    whole = continuation(model, list("é".encode()), 200, sampling)
    assert "".join(pieces) == bytes(whole).decode(errors="replace")
    assert "\ufffd" in "".join(pieces)


def test_text_arrives_before_the_rest_is_computed() -> None:
    model, calls = writer_of(b"abc"), []
    model.register_forward_hook(lambda *_: calls.append(1))
    stream = generate(model, ByteTokenizer(), "a", 1000, GREEDY)
    assert next(stream) == "b"
    assert len(calls) == 1
    assert next(stream) == "c"
    assert len(calls) == 2


def test_the_prompt_decides_what_follows_and_is_not_repeated() -> None:
    model = writer_of(b"abc")
    assert "".join(generate(model, ByteTokenizer(), "xa", 4, GREEDY)) == "bcab"
    assert "".join(generate(model, ByteTokenizer(), "xb", 4, GREEDY)) == "cabc"


def test_an_empty_prompt_starts_from_a_line_break() -> None:
    assert prompt_ids(ByteTokenizer(), "") == [10]
    model = writer_of(b"\nabc")
    assert "".join(generate(model, ByteTokenizer(), "", 3, GREEDY)) == "abc"


def test_an_empty_prompt_starts_from_the_first_token_where_there_is_no_line_break() -> None:
    tokenizer = CharTokenizer("hello")
    assert prompt_ids(tokenizer, "") == [0]
    model = random_gpt(MODERN, vocab_size=4)
    texts = ["".join(generate(model, tokenizer, prompt, 20, GREEDY)) for prompt in ("", "e")]
    assert texts[0] == texts[1]  # token 0 is the e


def test_a_prompt_with_an_unknown_character_is_refused() -> None:
    model = random_gpt(MODERN, vocab_size=4)
    with pytest.raises(TokenizerError, match="'z'"):
        list(generate(model, CharTokenizer("hello"), "hez", 5))


# --- The distribution -----------------------------------------------------------------------


def exact_probabilities(logits: list[float], sampling: Sampling) -> list[float]:
    """Temperature, then top-k, then top-p, in plain Python."""
    scaled = [x / sampling.temperature for x in logits]
    weights = [math.exp(x - max(scaled)) for x in scaled]
    ranked = sorted(range(len(weights)), key=lambda i: -weights[i])
    if sampling.top_k is not None:
        ranked = ranked[: sampling.top_k]
    total = sum(weights[i] for i in ranked)
    if sampling.top_p is not None:
        kept, reached = [], 0.0
        for i in ranked:
            if reached >= sampling.top_p:
                break
            kept.append(i)
            reached += weights[i] / total
        ranked = kept
    total = sum(weights[i] for i in ranked)
    return [weights[i] / total if i in ranked else 0.0 for i in range(len(weights))]


distinct_logits = st.lists(st.integers(-40, 40), min_size=1, max_size=12, unique=True)


@given(
    logits=distinct_logits,
    temperature=st.floats(0.1, 5.0),
    top_k=st.none() | st.integers(1, 15),
    top_p=st.none() | st.floats(0.01, 1.0),
)
def test_probabilities_equal_those_computed_by_hand(
    logits: list[int], temperature: float, top_k: int | None, top_p: float | None
) -> None:
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    expected = exact_probabilities([x / 8 for x in logits], sampling)
    if top_p is not None:  # no border so near that rounding could move it
        nearby = (Sampling(temperature, top_k, min(1.0, top_p * f)) for f in (0.999, 1.001))
        assume(all(exact_probabilities([x / 8 for x in logits], n) == expected for n in nearby))
    both = torch.tensor([[x / 8 for x in logits], [-x / 8 for x in logits]])
    ours = next_token_probabilities(both, sampling)[0].tolist()
    assert ours == pytest.approx(expected, abs=1e-5)
    assert [x > 0 for x in ours] == [x > 0 for x in expected]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(temperature=1.0), [0.5, 0.3, 0.15, 0.05]),
        (Sampling(temperature=0.5), [0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365]),
        (Sampling(temperature=0), [1, 0, 0, 0]),
        (Sampling(temperature=1.0, top_k=1), [1, 0, 0, 0]),
        (Sampling(temperature=1.0, top_k=2), [0.625, 0.375, 0, 0]),
        (Sampling(temperature=1.0, top_k=99), [0.5, 0.3, 0.15, 0.05]),
        (Sampling(temperature=1.0, top_p=0.49), [1, 0, 0, 0]),
        (Sampling(temperature=1.0, top_p=0.51), [0.625, 0.375, 0, 0]),
        (Sampling(temperature=1.0, top_p=0.94), [50 / 95, 30 / 95, 15 / 95, 0]),
        (Sampling(temperature=1.0, top_p=1.0), [0.5, 0.3, 0.15, 0.05]),
        # 0.6 of all, but 0.625 of the two that top-k leaves.
        (Sampling(temperature=1.0, top_k=2, top_p=0.6), [1, 0, 0, 0]),
    ],
)
def test_a_worked_example_of_each_setting(sampling: Sampling, expected: list[float]) -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log() + 7  # a shift changes nothing
    ours = next_token_probabilities(logits, sampling)[0].tolist()
    assert ours == pytest.approx(expected, abs=1e-6)


def test_the_settings_act_on_each_row_by_itself() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [0.0, 9.0, 0.0]])
    kept = keep_top_k(logits, 1)
    assert kept.isfinite().tolist() == [
        [True, False, False],
        [False, False, True],
        [False, True, False],
    ]
    kept = keep_top_p(logits, 0.8)
    assert kept.isfinite().tolist() == [
        [True, True, False],
        [False, True, True],
        [False, True, False],
    ]
    assert torch.equal(kept[kept.isfinite()], logits[kept.isfinite()])


def assert_drawn_from(drawn: list[int], probabilities: Tensor) -> None:
    """Pearson's chi-squared, five standard deviations wide; what cannot come must not have come."""
    counts = Counter(drawn)
    possible = [i for i, p in enumerate(probabilities.tolist()) if p > 0]
    assert set(counts) <= set(possible)
    expected = {i: len(drawn) * float(probabilities[i]) for i in possible}
    assert min(expected.values()) >= 5, "too few draws for the test"
    statistic = sum((counts[i] - e) ** 2 / e for i, e in expected.items())
    freedom = len(possible) - 1
    assert statistic < freedom + 5 * math.sqrt(2 * max(1, freedom))


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0),
        Sampling(temperature=0.7),
        Sampling(temperature=2.0),
        Sampling(temperature=1.0, top_k=3),
        Sampling(temperature=1.0, top_p=0.6),
        Sampling(temperature=1.5, top_k=5, top_p=0.8),
    ],
    ids=lambda sampling: f"T{sampling.temperature}k{sampling.top_k}p{sampling.top_p}",
)
def test_draws_are_as_frequent_as_their_probabilities(sampling: Sampling) -> None:
    # The first and the last token are among those that top-k and top-p shut out.
    row = [-1.0, 0.2, 1.1, -0.4, 1.7, 0.6, 0.0, -0.8]
    expected = torch.tensor(exact_probabilities(row, sampling), dtype=torch.float64)
    generator = torch.Generator().manual_seed(11)
    draws = 20_000
    drawn = sample(torch.tensor([row]).expand(draws, -1), sampling, [generator] * draws)
    assert_drawn_from(drawn.tolist(), expected)


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 1), (1 - 2**-53, 2)])
def test_the_outermost_random_numbers_draw_no_impossible_token(
    uniform: float, token: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: list[float] = []

    def rand(*_: object, **__: object) -> Tensor:
        numbers.append(uniform)
        return torch.tensor([uniform], dtype=torch.float64)

    monkeypatch.setattr(torch, "rand", rand)
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]])
    assert sample(logits, Sampling(temperature=1.0), [torch.Generator()]).tolist() == [token]
    assert numbers == [uniform]


def test_each_row_draws_from_its_own_distribution_with_its_own_generator() -> None:
    generators = [torch.Generator().manual_seed(i) for i in range(3)]
    logits = torch.full((3, 6), -torch.inf)
    for row, token in enumerate((4, 0, 5)):
        logits[row, token] = 0.0
    assert sample(logits, Sampling(temperature=1.0), generators).tolist() == [4, 0, 5]
    flat = torch.zeros(3, 1000)
    together = sample(flat, Sampling(temperature=1.0), generators).tolist()
    for row in range(3):
        generator = torch.Generator().manual_seed(row)
        torch.rand(1, generator=generator, dtype=torch.float64)  # one number for the first draw
        alone = sample(flat[row : row + 1], Sampling(temperature=1.0), [generator])
        assert alone.tolist() == together[row : row + 1]


def test_temperature_zero_takes_the_likeliest_whatever_the_seed() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]])
    for seed in range(5):
        generators = [torch.Generator().manual_seed(seed + i) for i in range(2)]
        assert sample(logits, GREEDY, generators).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.1}, "--temperature -0.1"),
        ({"temperature": math.inf}, "--temperature inf"),
        ({"temperature": math.nan}, "--temperature nan"),
        ({"top_k": 0}, "--top-k 0"),
        ({"top_k": -3}, "--top-k -3"),
        ({"top_p": 0.0}, "--top-p 0.0"),
        ({"top_p": 1.5}, "--top-p 1.5"),
        ({"top_p": math.nan}, "--top-p nan"),
    ],
)
def test_a_setting_outside_its_range_is_refused_by_name(
    values: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{message}: "):
        Sampling(**values)


@pytest.mark.parametrize("temperature", [1e-3, 1e-40, 1e-300])
def test_a_tiny_temperature_takes_the_likeliest(temperature: float) -> None:
    logits = torch.tensor([[0.5, 2.0, -1.0, 1.99]])
    generator = torch.Generator().manual_seed(0)
    assert sample(logits, Sampling(temperature=temperature), [generator]).tolist() == [1]
