"""Distributions against arithmetic in plain Python, and draws against distributions."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from minigpt_cli.errors import ConfigError
from minigpt_cli.generation.sampling import (
    Sampling,
    keep_top_k,
    keep_top_p,
    next_token_probabilities,
    penalize_repetition,
    sample,
    uniform_numbers,
)
from minigpt_cli.generation.sampling import generators as generators_of
from tests.helpers.distributions import assert_drawn_from

GREEDY = Sampling(temperature=0)
HALF = torch.full((1, 1), 0.5, dtype=torch.float64)


def exact_probabilities(logits: list[float], sampling: Sampling) -> list[float]:
    """Temperature, then top-k, top-p and min-p, in plain Python."""
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
    if sampling.min_p is not None:
        ranked = [i for i in ranked if weights[i] >= sampling.min_p * weights[ranked[0]]]
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
        (Sampling(temperature=1.0, min_p=0.0), [0.5, 0.3, 0.15, 0.05]),
        (Sampling(temperature=1.0, min_p=0.29), [50 / 95, 30 / 95, 15 / 95, 0]),
        (Sampling(temperature=1.0, min_p=0.61), [1, 0, 0, 0]),
        # At temperature 0.5 the shares of the highest probability are 1, 0.36, 0.09 and 0.01.
        (Sampling(temperature=0.5, min_p=0.2), [0.25 / 0.34, 0.09 / 0.34, 0, 0]),
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


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0),
        Sampling(temperature=0.7),
        Sampling(temperature=2.0),
        Sampling(temperature=1.0, top_k=3),
        Sampling(temperature=1.0, top_p=0.6),
        Sampling(temperature=1.0, min_p=0.3),
        Sampling(temperature=1.5, top_k=5, top_p=0.8),
    ],
    ids=lambda s: f"T{s.temperature}k{s.top_k}p{s.top_p}m{s.min_p}",
)
def test_draws_are_as_frequent_as_their_probabilities(sampling: Sampling) -> None:
    # The first and the last token are among those that top-k and top-p exclude.
    row = [-1.0, 0.2, 1.1, -0.4, 1.7, 0.6, 0.0, -0.8]
    expected = torch.tensor(exact_probabilities(row, sampling), dtype=torch.float64)
    generator = torch.Generator().manual_seed(11)
    draws = 20_000
    uniform = torch.rand(draws, 1, generator=generator, dtype=torch.float64)
    drawn = sample(torch.tensor([row]).expand(draws, -1), sampling, uniform)
    assert_drawn_from(drawn.tolist(), expected)


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 1), (1 - 2**-53, 2)])
def test_the_outermost_random_numbers_draw_no_impossible_token(uniform: float, token: int) -> None:
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]])
    number = torch.tensor([[uniform]], dtype=torch.float64)
    assert sample(logits, Sampling(temperature=1.0), number).tolist() == [token]


def test_each_row_draws_from_its_own_distribution_with_its_own_number() -> None:
    logits = torch.full((3, 6), -torch.inf)
    for row, token in enumerate((4, 0, 5)):
        logits[row, token] = 0.0
    uniform = torch.rand(3, 1, dtype=torch.float64)
    assert sample(logits, Sampling(temperature=1.0), uniform).tolist() == [4, 0, 5]
    flat = torch.zeros(3, 1000)
    together = sample(flat, Sampling(temperature=1.0), uniform).tolist()
    assert together == [int(1000 * number) for number in uniform]


def test_each_text_has_the_numbers_of_its_own_generator_from_its_start_on() -> None:
    starts = [3, 5, 4, 160]
    numbers = uniform_numbers(generators_of(7, 4), starts)
    rows = torch.cat([next(numbers) for _ in range(200)], dim=1)
    for row, (start, generator) in enumerate(zip(starts, generators_of(7, 4), strict=True)):
        alone = [
            torch.rand(1, generator=generator, dtype=torch.float64) for _ in range(203 - start)
        ]
        assert torch.equal(rows[row, start - 3 :], torch.cat(alone))
        assert not rows[row, : start - 3].any()


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (
            Sampling(temperature=1.0),
            [[21, 18, 13, 21, 16, 18], [2, 4, 4, 4, 10, 4], [19, 0, 16, 13, 19, 11]],
        ),
        (
            Sampling(temperature=0.7, top_k=9, seed=1),
            [[18, 21, 18, 18, 11, 13], [9, 4, 7, 9, 12, 4], [8, 0, 21, 18, 18, 0]],
        ),
        (
            Sampling(top_p=0.9, seed=2**63 + 5),
            [[18, 3, 8, 21, 8, 11], [22, 4, 4, 22, 9, 4], [8, 21, 8, 18, 18, 16]],
        ),
        (
            Sampling(min_p=0.02, repetition_penalty=1.5, seed=7),
            [[13, 6, 19, 18, 13, 13], [20, 22, 4, 4, 17, 2], [13, 18, 0, 0, 21, 0]],
        ),
    ],
)
def test_a_seed_draws_what_it_always_drew(sampling: Sampling, expected: list[list[int]]) -> None:
    logits = torch.tensor(
        [[((37 * i + 11 * row) % 23 - 11) / 4 for i in range(23)] for row in range(3)]
    )
    seen = torch.tensor([[i % 3 == row for i in range(23)] for row in range(3)])
    numbers = uniform_numbers(generators_of(sampling.seed, 3), [0, 0, 0])
    drawn = [sample(logits, sampling, next(numbers), seen).tolist() for _ in range(6)]
    assert [list(row) for row in zip(*drawn, strict=True)] == expected


def test_temperature_zero_picks_the_most_likely_token_whatever_the_number() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]])
    for number in (0.0, 0.3, 1 - 2**-53):
        uniform = torch.full((2, 1), number, dtype=torch.float64)
        assert sample(logits, GREEDY, uniform).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.inf),
        ("temperature", math.nan),
        ("top_k", 0),
        ("top_k", -3),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_p", math.nan),
        ("min_p", -0.1),
        ("min_p", 1.5),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", math.inf),
        ("repetition_penalty", 1e-39),
    ],
)
def test_a_setting_outside_its_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} must be .*, not {value}$"):
        replace(Sampling(), **{name: value})


@pytest.mark.parametrize("temperature", [1e-3, 1e-40, 1e-300])
def test_a_tiny_temperature_picks_the_most_likely_token(temperature: float) -> None:
    logits = torch.tensor([[0.5, 2.0, -1.0, 1.99]])
    assert sample(logits, Sampling(temperature=temperature), HALF).tolist() == [1]


def test_the_penalty_makes_seen_tokens_less_likely_whatever_their_sign() -> None:
    logits = torch.tensor([[2.0, -2.0, 2.0, -2.0]])
    seen = torch.tensor([[True, True, False, False]])
    assert penalize_repetition(logits, seen, 4.0).tolist() == [[0.5, -8.0, 2.0, -2.0]]
    assert penalize_repetition(logits, seen, 0.5).tolist() == [[4.0, -1.0, 2.0, -2.0]]
    assert torch.equal(penalize_repetition(logits, None, 4.0), logits)


def test_the_penalty_acts_before_the_choice() -> None:
    logits, seen = torch.tensor([[2.0, 1.9]]), torch.tensor([[True, False]])
    greedy = Sampling(temperature=0, repetition_penalty=1.2)
    assert sample(logits, greedy, HALF, seen).tolist() == [1]
    single = Sampling(top_k=1, repetition_penalty=1.2)
    assert next_token_probabilities(logits, single, seen).tolist() == [[0.0, 1.0]]
