"""The learning rate of every step, against values computed by hand."""

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt_cli.config.schema import OptimizerConfig
from minigpt_cli.training.schedule import learning_rate, lr_scale


def settings(**values: Any) -> OptimizerConfig:
    return OptimizerConfig.model_validate(values)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (60, 1.0), (109, 1.0), (110, 1.0)],
)
def test_constant_schedule(step: int, expected: float) -> None:
    config = settings(schedule="constant", warmup_iters=10, learning_rate=0.02, min_lr=0.002)
    assert lr_scale(config, step, 110) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.1),
        (9, 1.0),
        (10, 1.0),
        (35, 0.1 + 0.9 * (2 + math.sqrt(2)) / 4),  # a quarter of the way: cos 45°
        (60, 0.55),
        (85, 0.1 + 0.9 * (2 - math.sqrt(2)) / 4),
        (110, 0.1),
        (500, 0.1),
    ],
)
def test_cosine_schedule(step: int, expected: float) -> None:
    config = settings(schedule="cosine", warmup_iters=10, learning_rate=0.02, min_lr=0.002)
    assert lr_scale(config, step, 110) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.05),
        (19, 1.0),
        (20, 1.0),
        (500, 1.0),
        (600, 0.1 + 0.9 * 0.8),
        (750, 0.55),
        (999, 0.1 + 0.9 * 0.002),
        (1000, 0.1),
        (2000, 0.1),
    ],
)
def test_warmup_stable_decay_schedule(step: int, expected: float) -> None:
    config = settings(
        schedule="wsd", warmup_iters=20, decay_fraction=0.5, learning_rate=0.02, min_lr=0.002
    )
    assert lr_scale(config, step, 1000) == pytest.approx(expected)


@given(
    schedule=st.sampled_from(["constant", "cosine", "wsd"]),
    warmup=st.integers(0, 30),
    decay=st.floats(0.01, 1.0),
    floor=st.floats(0.0, 1.0),
    length=st.integers(1, 200),
)
def test_every_schedule_rises_then_never_rises_again(
    schedule: str, warmup: int, decay: float, floor: float, length: int
) -> None:
    config = settings(
        schedule=schedule,
        warmup_iters=warmup,
        decay_fraction=decay,
        learning_rate=0.5,
        min_lr=0.5 * floor,
    )
    scales = [lr_scale(config, step, length) for step in range(length + 10)]
    assert all(0 < scale <= 1 for scale in scales[:length])
    peak = scales.index(max(scales))
    assert peak <= max(0, warmup - 1) or schedule == "wsd"
    assert all(a < b for a, b in pairwise(scales[: peak + 1]))
    after = scales[peak:]
    assert all(a >= b for a, b in pairwise(after))
    if warmup < length:
        assert scales[length - 1] >= min(floor, 1 / max(1, warmup)) - 1e-12
    if schedule != "constant" and warmup < length:
        assert after[-1] == pytest.approx(floor)


def test_the_learning_rate_is_that_of_the_step_counted_from_one() -> None:
    config = settings(schedule="constant", warmup_iters=10, learning_rate=0.02)
    assert [learning_rate(config, step, 100) for step in (1, 5, 10, 50)] == pytest.approx(
        [0.002, 0.01, 0.02, 0.02]
    )
