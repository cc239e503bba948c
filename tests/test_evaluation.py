"""A model's score, against a plain loop over the text, a window at a time."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minigpt_cli.config.schema import ClassicConfig, ModelConfig, ModernConfig
from minigpt_cli.data.progress import no_progress
from minigpt_cli.data.tokens.token_files import Tokens
from minigpt_cli.errors import CorpusError, NonFiniteError
from minigpt_cli.evaluation import Evaluation, evaluate, predict_tokens
from minigpt_cli.model.gpt import GPT
from minigpt_cli.tokenizer.base import Tokenizer
from minigpt_cli.tokenizer.byte import ByteTokenizer
from minigpt_cli.tokenizer.char import CharTokenizer
from minigpt_cli.tokenizer.word import WordTokenizer
from tests.helpers import dense_gpt
from tests.helpers.dense_gpt import random_gpt

CLASSIC = ClassicConfig(n_layer=1, n_head=2, n_embd=16, block_size=8)
MODERN = ModernConfig(n_layer=1, n_head=2, n_embd=16, block_size=8)
both_families = pytest.mark.parametrize("config", [CLASSIC, MODERN], ids=["classic", "modern"])


def text_of(length: int, vocab_size: int = 256, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocab_size, length).astype(np.uint16)


def score(
    model: GPT, tokenizer: Tokenizer, tokens: list[int], starts: range | list[int]
) -> Evaluation:
    """Window by window and token by token, in double precision."""
    nats, correct, count, text_bytes, unknown = 0.0, 0, 0, 0, 0
    for start in starts:
        window = tokens[start : start + model.config.block_size + 1]
        scores = dense_gpt.logits(model, window[:-1])
        for row, target in zip(scores.tolist(), window[1:], strict=True):
            largest = max(row)
            nats += largest + math.log(sum(math.exp(x - largest) for x in row)) - row[target]
            correct += row.index(largest) == target
            count += 1
            if target == tokenizer.unknown_id:
                unknown += 1
            else:
                text_bytes += len(tokenizer.token_bytes[target])
    bits = nats / math.log(2) / text_bytes
    return Evaluation(count, nats / count, bits, correct / count, unknown)


def assert_equal_scores(ours: Evaluation, expected: Evaluation) -> None:
    assert ours.tokens == expected.tokens
    assert ours.unknown_tokens == expected.unknown_tokens
    assert ours.loss == pytest.approx(expected.loss, rel=1e-5)
    assert ours.bits_per_byte == pytest.approx(expected.bits_per_byte, rel=1e-5)
    assert ours.accuracy == pytest.approx(expected.accuracy, abs=1e-9)


@both_families
@given(length=st.integers(2, 60))
def test_a_score_equals_a_plain_loop_over_every_window(config: ModelConfig, length: int) -> None:
    # Whole windows and every size of a last one that is shorter; tokens of one to four bytes.
    tokenizer = CharTokenizer("a\né☃𝄞")
    model = random_gpt(config, 5)
    tokens = text_of(length, 5, seed=length)
    expected = score(model, tokenizer, tokens.tolist(), range(0, length - 1, 8))
    assert expected.tokens == length - 1
    assert length < 30 or 0 < expected.accuracy < 1
    assert_equal_scores(evaluate(model, tokenizer, tokens), expected)


@both_families
@pytest.mark.parametrize("length", [2, 8, 9, 10, 16, 17, 18, 100])
def test_every_token_but_the_first_is_predicted_exactly_once(
    config: ModelConfig, length: int
) -> None:
    model = random_gpt(config, 256)
    read: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: read.extend(inputs[0].flatten().tolist()))
    result = evaluate(model, ByteTokenizer(), np.arange(length, dtype=np.uint16))
    assert sorted(read) == list(range(length - 1))  # each but the last is read, and predicts one
    assert result.tokens == length - 1


def test_a_text_of_many_passes_scores_as_one_loop() -> None:
    model, vocab_size = random_gpt(MODERN, 20), 20
    tokenizer = WordTokenizer([f"word{i}" for i in range(vocab_size - 1)])
    tokens = text_of(40_013, vocab_size)
    passes: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    result = evaluate(model, tokenizer, tokens)
    assert len(passes) > 2
    assert sum(passes) == -(-40_012 // 8)
    ids = torch.from_numpy(tokens.astype(np.int64))
    nats, correct = 0.0, 0
    for start in range(0, 40_012, 800):  # a hundred windows at a time
        x = ids[start : start + 800]
        x = x[: (len(ids) - 1 - start)]
        y = ids[start + 1 : start + 1 + len(x)]
        for part_x, part_y in (
            (x[: len(x) // 8 * 8].view(-1, 8), y[: len(x) // 8 * 8].view(-1, 8)),
            (x[len(x) // 8 * 8 :][None], y[len(x) // 8 * 8 :][None]),
        ):
            if part_x.numel():
                with torch.no_grad():
                    logits = model(part_x).double()
                nats -= float(logits.log_softmax(-1).gather(-1, part_y[..., None]).sum())
                correct += int((logits.argmax(-1) == part_y).sum())
    assert result.tokens == 40_012
    assert result.loss == pytest.approx(nats / 40_012, rel=1e-6)
    assert result.accuracy == pytest.approx(correct / 40_012, abs=1e-4)


def test_bits_per_byte_count_the_bytes_of_the_tokens() -> None:
    # A model that finds all tokens equally likely spends log2(V) bits on each.
    tokenizer = WordTokenizer(["to", "é", " "])
    model = GPT(MODERN, 4).initialize()
    with torch.no_grad():
        model.head.weight.zero_()
    tokens = np.array([3, 1, 2, 3, 2, 1], dtype=np.uint16)  # after the first: to é ␣ é to
    result = evaluate(model, tokenizer, tokens)
    assert result.loss == pytest.approx(math.log(4))
    assert result.perplexity == pytest.approx(4)
    assert result.bits_per_byte == pytest.approx(5 * 2 / (2 + 2 + 1 + 2 + 2))


def test_bytes_of_unknown_words_are_not_counted_as_text() -> None:
    tokenizer = WordTokenizer(["to", "be", " "])
    model = random_gpt(MODERN, 4)
    tokens = [1, 3, 0, 3, 2, 0, 0, 3, 1, 3, 0, 2]
    result = evaluate(model, tokenizer, np.array(tokens, dtype=np.uint16))
    assert result.unknown_tokens == 4
    assert_equal_scores(result, score(model, tokenizer, tokens, [0, 8]))
    total_bits = result.loss * 11 / math.log(2)
    assert result.bits_per_byte == pytest.approx(total_bits / len("  be to be"))


def test_a_text_of_only_unknown_words_has_a_finite_score() -> None:
    result = evaluate(random_gpt(MODERN, 4), WordTokenizer("abc"), np.zeros(5, dtype=np.uint16))
    assert result.unknown_tokens == 4
    assert math.isfinite(result.bits_per_byte)


@both_families
def test_scoring_twice_gives_the_same_bits_and_draws_no_random_number(config: ModelConfig) -> None:
    model = random_gpt(config.model_copy(update={"dropout": 0.5}), 256).train()
    state = torch.get_rng_state()
    first, second = (evaluate(model, ByteTokenizer(), text_of(300)) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)


@both_families
@pytest.mark.parametrize("training", [True, False])
def test_scoring_restores_the_mode_of_the_model(config: ModelConfig, training: bool) -> None:
    model = random_gpt(config.model_copy(update={"dropout": 0.5}), 256).train(training)
    modes: list[bool] = []
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda module, *_: modes.append(module.training))
    evaluate(model, ByteTokenizer(), text_of(50))
    assert set(modes) == {False}
    assert all(module.training == training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("max_tokens", [8, 16, 40, 100, 400])
def test_a_limited_score_is_that_of_whole_windows_spread_over_the_text(max_tokens: int) -> None:
    model = random_gpt(MODERN, 1003)
    tokens = np.arange(1003, dtype=np.uint16)  # each token once, so that what is read is known
    tokenizer = WordTokenizer([f"{i:04}" for i in range(1002)])
    starts: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: starts.extend(inputs[0][:, 0].tolist()))
    result = evaluate(model, tokenizer, tokens, max_tokens)
    assert result.tokens == max_tokens // 8 * 8
    assert len(starts) == len(set(starts)) == max_tokens // 8
    assert all(start % 8 == 0 for start in starts)
    if len(starts) > 1:
        # From the first window to the last, and no two gaps differ by more than a window.
        assert (min(starts), max(starts)) == (0, 992)
        gaps = np.diff(sorted(starts))
        assert gaps.max() - gaps.min() <= 8
    assert_equal_scores(result, score(model, tokenizer, tokens.tolist(), starts))


@both_families
@settings(max_examples=30)
@given(length=st.integers(2, 40), context=st.integers(1, 8))
def test_each_token_is_predicted_in_order_with_at_least_the_requested_context(
    config: ModelConfig, length: int, context: int
) -> None:
    model = random_gpt(config, 256)
    tokens = text_of(length, seed=length)
    found = list(predict_tokens(model, tokens, context=context))
    assert torch.cat([part.ids for part in found]).tolist() == tokens[1:].tolist()
    nats = torch.cat([part.nats for part in found]).tolist()
    stride = config.block_size + 1 - context
    for i in range(1, length):
        # The first window of those `stride` apart that reaches so far.
        start = stride * max(0, math.ceil((i - config.block_size) / stride))
        assert i - start >= min(i, context)
        row = dense_gpt.logits(model, tokens[start:i].tolist())[-1].double()
        assert nats[i - 1] == pytest.approx(-row.log_softmax(-1)[tokens[i]].item(), rel=1e-4)


@pytest.mark.parametrize("max_tokens", [59, 60, 1000])
def test_a_limit_beyond_the_text_changes_nothing(max_tokens: int) -> None:
    model = random_gpt(MODERN, 256)
    tokens = text_of(60)
    assert evaluate(model, ByteTokenizer(), tokens, max_tokens) == evaluate(
        model, ByteTokenizer(), tokens
    )


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_both_widths_of_stored_tokens_score_alike(dtype: type) -> None:
    model = random_gpt(MODERN, 70_000)
    tokens: Tokens = np.array([5, 60_000, 7, 65_535, 9], dtype=dtype)
    tokenizer = WordTokenizer([f"{i:05}" for i in range(69_999)])
    assert_equal_scores(
        evaluate(model, tokenizer, tokens), score(model, tokenizer, tokens.tolist(), [0])
    )


@pytest.mark.parametrize("length", [0, 1])
def test_a_text_too_short_to_predict_anything_is_refused_with_both_numbers(length: int) -> None:
    with pytest.raises(CorpusError, match=f"has {length} tokens and needs at least 2"):
        evaluate(random_gpt(MODERN, 256), ByteTokenizer(), text_of(length))


def test_perplexity_is_finite_for_any_loss() -> None:
    assert Evaluation(1, 1e6, 1.0, 0.0, 0).perplexity > 1e300
    assert Evaluation(1, math.log(7), 1.0, 0.0, 0).perplexity == pytest.approx(7)


# --- Several processes ----------------------------------------------------------------------------


class Shared:
    """One of several processes; what it adds up is kept, and the others add `others`."""

    def __init__(self, rank: int, size: int, in_lockstep: bool, others: float = 0.0) -> None:
        self.rank, self.size, self.in_lockstep, self.others = rank, size, in_lockstep, others
        self.numbers: list[float] = []

    def sums(self, numbers: Sequence[float]) -> list[float]:
        self.numbers = list(numbers)
        return [number + self.others for number in numbers]


@pytest.mark.parametrize("size", [2, 3, 7])
@pytest.mark.parametrize("in_lockstep", [False, True])
def test_processes_share_the_passes_out(size: int, in_lockstep: bool) -> None:
    model, tokens = random_gpt(MODERN, 256), text_of(5 * MODERN.block_size + 3)
    whole = evaluate(model, ByteTokenizer(), tokens)
    passes: list[int] = []
    total = torch.zeros(5, dtype=torch.float64)
    for rank in range(size):
        count = [0]
        handle = model.register_forward_hook(
            lambda *_, count=count: count.__setitem__(0, count[0] + 1)
        )
        shared = Shared(rank, size, in_lockstep, others=1.0)
        evaluate(model, ByteTokenizer(), tokens, None, no_progress, shared)
        handle.remove()
        passes.append(count[0])
        total += torch.tensor(shared.numbers, dtype=torch.float64)
    assert total[2] == whole.tokens
    assert total[0] / total[2] == pytest.approx(whole.loss, abs=1e-6)
    assert total[1] / total[2] == pytest.approx(whole.accuracy)
    if in_lockstep:
        assert len(set(passes)) == 1
    elif size <= 5:
        assert min(passes) >= 1


def test_what_is_not_finite_in_one_process_is_known_to_all() -> None:
    model = random_gpt(MODERN, 256)
    other = Shared(0, 2, False, others=math.nan)
    with pytest.raises(NonFiniteError):
        evaluate(model, ByteTokenizer(), text_of(300), None, no_progress, other)
    with torch.no_grad():
        model.head.weight.fill_(math.nan)
    mine = Shared(0, 2, False)
    with pytest.raises(NonFiniteError):
        evaluate(model, ByteTokenizer(), text_of(300), None, no_progress, mine)
    assert math.isnan(mine.numbers[0])
