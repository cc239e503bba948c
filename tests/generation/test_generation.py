"""Generated text against recomputation without a cache, and samples against probabilities."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from minigpt_cli.config.schema import ClassicConfig, ModelConfig, ModernConfig
from minigpt_cli.errors import ConfigError, TokenizerError
from minigpt_cli.generation.decoder import Decoder
from minigpt_cli.generation.sampling import Sampling, penalize_repetition
from minigpt_cli.generation.text import (
    ModelAndTokenizer,
    generate,
    generate_texts,
    prompt_ids,
)
from minigpt_cli.generation.tokens import GenerationRequest, NextTokens, generate_tokens
from minigpt_cli.model.gpt import GPT
from minigpt_cli.model.kv_cache import KVCache
from minigpt_cli.tokenizer.byte import ByteTokenizer
from minigpt_cli.tokenizer.char import CharTokenizer
from tests.helpers import dense_gpt
from tests.helpers.dense_gpt import random_gpt
from tests.helpers.distributions import assert_drawn_from

GREEDY = Sampling(temperature=0)
CLASSIC = ClassicConfig(n_layer=2, n_head=4, n_embd=32, block_size=24)
MODERN = ModernConfig(n_layer=2, n_head=4, n_kv_head=2, n_embd=32, block_size=24)
both_families = pytest.mark.parametrize("config", [CLASSIC, MODERN], ids=["classic", "modern"])


def continuation(
    model: GPT, prompt: list[int], length: int, sampling: Sampling | None = None
) -> list[int]:
    request = GenerationRequest([prompt], length, sampling or Sampling())
    (text,) = texts_of(generate_tokens(model, request))
    return text


def texts_of(steps: Iterator[NextTokens]) -> list[list[int]]:
    """The tokens of each text."""
    columns = zip(*(step.tokens for step in steps), strict=True)
    return [[token for token in column if token is not None] for column in columns]


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
    assert len(set(written)) > 5  # not the same token repeated


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_past_the_window_modern_equals_a_causal_band_over_the_whole_text(
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
    assert written[:100] != cropped  # the two differ


@pytest.mark.parametrize("block_size", [1, 2, 7, 24])
@pytest.mark.parametrize("prompt", [[3], list(range(24))], ids=["short", "whole window"])
def test_past_the_window_classic_equals_rereading_the_last_half_window(
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
def test_only_the_last_window_of_a_longer_prompt_is_read(config: ModelConfig) -> None:
    model = random_gpt(config)
    prompt = [i * i % 50 for i in range(60)]
    written = continuation(model, prompt, 30, GREEDY)
    assert written == continuation(model, prompt[-24:], 30, GREEDY)
    assert written != continuation(model, prompt[-23:], 30, GREEDY)


@both_families
def test_samples_are_the_same_in_a_batch_and_alone(config: ModelConfig) -> None:
    model = random_gpt(config)
    sampling = Sampling(temperature=1.0, top_k=40, seed=5)
    eight, four, one = (
        texts_of(generate_tokens(model, GenerationRequest([[7, 8]], 60, sampling, num_samples=n)))
        for n in (8, 4, 1)
    )
    assert eight[:4] == four
    assert four[:1] == one
    assert len({*map(tuple, eight)}) == 8


@both_families
def test_prompts_of_different_lengths_are_continued_as_if_alone(config: ModelConfig) -> None:
    model, sampling = random_gpt(config), Sampling(temperature=1.0, seed=3)
    prompts = [[5], [9, 8, 7, 6, 5, 4], [i % 50 for i in range(40)]]  # the last is past the window
    together = texts_of(
        generate_tokens(model, GenerationRequest(prompts, 60, sampling, num_samples=2))
    )
    alone = [
        text
        for prompt in prompts
        for text in texts_of(
            generate_tokens(model, GenerationRequest([prompt], 60, sampling, num_samples=2))
        )
    ]
    assert [len(text) for text in together] == [60] * 6
    assert together == alone


@both_families
def test_the_exact_window_is_cropping_and_reading_again(config: ModelConfig) -> None:
    model, prompt = random_gpt(config, 300, seed=2), [3, 1, 4]
    steps = generate_tokens(model, GenerationRequest([prompt], 60, GREEDY, exact_window=True))
    (written,) = texts_of(steps)
    text = list(prompt)
    for token in written:
        assert token == int(dense_gpt.logits(model, text[-config.block_size :])[-1].argmax())
        text.append(token)
    assert written != continuation(model, prompt, 60, GREEDY)


def test_the_repetition_penalty_knows_the_prompt_and_what_was_written() -> None:
    config = MODERN.model_copy(update={"block_size": 64})
    model, text = random_gpt(config, vocab_size=40), [1, 2, 3]
    sampling = Sampling(temperature=0, repetition_penalty=1.5)
    (written,) = texts_of(generate_tokens(model, GenerationRequest([text], 50, sampling)))
    for token in written:
        seen = torch.zeros(1, 40, dtype=torch.bool)
        seen[0, text] = True
        scores = dense_gpt.logits(model, text)[-1:]
        assert token == int(penalize_repetition(scores, seen, 1.5).argmax())
        text = [*text, token]
    assert written != continuation(model, [1, 2, 3], 50, GREEDY)


@both_families
def test_text_depends_on_the_seed_alone(config: ModelConfig) -> None:
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
    (step,) = generate_tokens(
        model, GenerationRequest([[1, 2, 3]], 1, Sampling(temperature=1.0), num_samples=5000)
    )
    assert_drawn_from([token for token in step.tokens if token is not None], expected)


@both_families
def test_generating_leaves_every_global_random_state_alone(config: ModelConfig) -> None:
    model = random_gpt(config)
    torch.manual_seed(1)
    states = (torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False))
    continuation(model, [7], 40, Sampling(temperature=1.0))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert str(np.random.get_state(legacy=False)) == str(states[2])


@both_families
def test_generating_changes_neither_weights_nor_gradients(config: ModelConfig) -> None:
    model = random_gpt(config)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    continuation(model, [7], 40)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    model(torch.tensor([[1, 2]]), torch.tensor([[2, 3]])).backward()  # and training can go on


# --- Text -----------------------------------------------------------------------------------


def writer_of(text: bytes) -> ModelAndTokenizer:
    """A model that, greedily, writes these distinct bytes in a cycle."""
    assert len(set(text)) == len(text)
    config = ModernConfig(n_layer=1, n_head=2, n_embd=256, block_size=8)
    model = GPT(config, 256).initialize().eval()
    with torch.no_grad():
        # Untrained blocks pass their input on, so only the embedding and the head speak.
        model.token_embedding.weight.copy_(torch.eye(256))
        model.head.weight.zero_()
        for here, following in zip(text, text[1:] + text[:1], strict=True):
            model.head.weight[following, here] = 1.0
    return ModelAndTokenizer(model, ByteTokenizer())


def test_characters_of_several_bytes_stream_whole() -> None:
    text = "é☃𝄞!"  # two, three, four and one byte
    pieces = list(generate(writer_of(text.encode()), "!", 30, GREEDY))
    assert "".join(pieces) == text * 3
    assert not any("\ufffd" in piece for piece in pieces)
    assert {piece for piece in pieces if piece} == set(text)


@pytest.mark.parametrize("length", range(1, 11))
def test_text_cut_off_within_a_character_ends_as_decoding_it_whole_does(length: int) -> None:
    text = "é☃𝄞!"
    pieces = list(generate(writer_of(text.encode()), "!", length, GREEDY))
    assert "".join(pieces) == text.encode()[:length].decode(errors="replace")


@pytest.mark.parametrize("seed", range(5))
def test_streamed_pieces_joined_are_the_decoded_whole(seed: int) -> None:
    # A random model over bytes writes broken characters most of the time.
    model, tokenizer = random_gpt(MODERN, vocab_size=256), ByteTokenizer()
    sampling = Sampling(temperature=1.0, seed=seed)
    pieces = list(generate(ModelAndTokenizer(model, tokenizer), "é", 200, sampling))
    whole = continuation(model, list("é".encode()), 200, sampling)
    assert "".join(pieces) == bytes(whole).decode(errors="replace")
    assert "\ufffd" in "".join(pieces)


def test_text_arrives_before_the_rest_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Tensor] = []
    read = Decoder.read

    def counted(self: Decoder, tokens: Tensor, cache: KVCache) -> Tensor:
        calls.append(tokens)
        return read(self, tokens, cache)

    monkeypatch.setattr(Decoder, "read", counted)
    monkeypatch.setattr("minigpt_cli.generation.tokens.decoder_for", Decoder)
    stream = generate(writer_of(b"abc"), "a", 1000, GREEDY)
    assert next(stream) == "b"
    assert not calls  # reading the prompt was enough
    assert next(stream) == "c"
    assert len(calls) == 1


def test_the_prompt_decides_what_follows_and_is_not_repeated() -> None:
    writer = writer_of(b"abc")
    assert "".join(generate(writer, "xa", 4, GREEDY)) == "bcab"
    assert "".join(generate(writer, "xb", 4, GREEDY)) == "cabc"


def test_an_empty_prompt_starts_from_a_line_break() -> None:
    assert prompt_ids(ByteTokenizer(), "") == [10]
    writer = writer_of(b"\nabc")
    assert "".join(generate(writer, "", 3, GREEDY)) == "abc"


def test_an_empty_prompt_starts_from_the_first_token_where_there_is_no_line_break() -> None:
    tokenizer = CharTokenizer("hello")
    assert prompt_ids(tokenizer, "") == [0]
    writer = ModelAndTokenizer(random_gpt(MODERN, vocab_size=4), tokenizer)
    texts = ["".join(generate(writer, prompt, 20, GREEDY)) for prompt in ("", "e")]
    assert texts[0] == texts[1]  # token 0 is the e


def test_a_prompt_with_an_unknown_character_is_refused() -> None:
    writer = ModelAndTokenizer(random_gpt(MODERN, vocab_size=4), CharTokenizer("hello"))
    with pytest.raises(TokenizerError, match="'z'"):
        list(generate(writer, "hez", 5))


def written_until(text: bytes, stop: list[str], length: int = 30) -> str:
    return "".join(generate(writer_of(text), chr(text[-1]), length, GREEDY, stop=stop))


def test_text_ends_before_the_first_stop_text() -> None:
    assert written_until(b"abcde", ["d"]) == "abc"
    assert written_until(b"abcde", ["cd", "e"]) == "ab"
    assert written_until(b"abcde", ["x"], 7) == "abcdeab"
    assert written_until(b"abcde", ["dea"]) == "abc"  # over the borders of tokens
    assert written_until(b"abcde", ["abcdeabcdeab"]) == ""
    assert written_until("é☃!".encode(), ["☃"]) == "é"


def test_a_beginning_of_a_stop_text_is_shown_once_it_does_not_go_on() -> None:
    pieces = list(generate(writer_of(b"abcde"), "e", 6, GREEDY, stop=["bcx", "a!"]))
    assert pieces == ["", "a", "", "bcd", "e", "", "a"]


def test_texts_stop_one_by_one() -> None:
    request = GenerationRequest([[ord("a")], [ord("c")]], 9, GREEDY)
    pieces = [*generate_texts(writer_of(b"abcde"), request, stop=["d"])]
    assert ["".join(piece.text for piece in text) for text in zip(*pieces, strict=True)] == [
        "bc",
        "",
    ]
    assert len(pieces) == 3


def test_an_empty_stop_text_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^stop: "):
        written_until(b"abc", [""])


def test_each_piece_knows_how_likely_its_token_was() -> None:
    model = random_gpt(MODERN, vocab_size=256)
    writer, request = (
        ModelAndTokenizer(model, ByteTokenizer()),
        GenerationRequest([[1, 2, 3]], 1, GREEDY),
    )
    steps = generate_texts(writer, request, probabilities=True)
    expected = dense_gpt.logits(model, [1, 2, 3])[-1].softmax(0)
    (piece,), (end,) = steps
    assert piece.token == int(expected.argmax())
    assert piece.probability == pytest.approx(float(expected.max()), abs=1e-5)
    assert end.probability is None
