"""The statistics of attention heads, recomputed one weight at a time."""

import math
from pathlib import Path

import numpy as np
import pytest

from minigpt_cli.errors import ConfigError, TokenizerError
from minigpt_cli.inspection.attention import attention_maps
from minigpt_cli.runs.checkpoint import Checkpoint, load_checkpoint

TEXT = "The old heron mends"


@pytest.fixture(scope="module")
def trained(trained_home: Path) -> Checkpoint:
    return load_checkpoint(trained_home / "runs" / "tiny" / "checkpoint.safetensors")


def test_heads_are_listed_by_layer_then_head(trained: Checkpoint) -> None:
    found = attention_maps(trained, TEXT)
    assert [(head.layer, head.head) for head in found.heads] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert "".join(found.window.tokens) == TEXT
    for head in found.heads:
        np.testing.assert_allclose(head.weights.sum(1), 1, atol=1e-6)
        assert not np.triu(head.weights, 1).any()


def test_statistics_are_those_of_the_weights(trained: Checkpoint) -> None:
    for head in attention_maps(trained, TEXT).heads:
        distance = on_previous = on_first = on_itself = entropy = 0.0
        for i in range(1, len(TEXT)):
            on_previous += head.weights[i, i - 1]
            on_first += head.weights[i, 0]
            on_itself += head.weights[i, i]
            for j in range(i + 1):
                distance += head.weights[i, j] * (i - j)
                entropy -= head.weights[i, j] * math.log2(head.weights[i, j])
        expected = [
            x / (len(TEXT) - 1) for x in (distance, on_previous, on_first, on_itself, entropy)
        ]
        found = [head.distance, head.on_previous, head.on_first, head.on_itself, head.entropy]
        assert found == pytest.approx(expected, rel=1e-4)


def test_a_single_token_attends_to_itself(trained: Checkpoint) -> None:
    (head,) = attention_maps(trained, "T", 0, 0).heads
    assert head.weights.tolist() == [[1]]
    assert (head.distance, head.on_itself, head.entropy) == (0, 1, 0)


@pytest.mark.parametrize(
    ("layer", "head", "expected"),
    [(1, None, [(1, 0), (1, 1)]), (None, 0, [(0, 0), (1, 0)]), (1, 0, [(1, 0)])],
)
def test_only_the_requested_heads_are_returned(
    trained: Checkpoint, layer: int | None, head: int | None, expected: list[tuple[int, int]]
) -> None:
    some, all_heads = (
        attention_maps(trained, TEXT, layer, head).heads,
        attention_maps(trained, TEXT).heads,
    )
    assert [(one.layer, one.head) for one in some] == expected
    by_place = {(one.layer, one.head): one for one in all_heads}
    assert all((one.weights == by_place[one.layer, one.head].weights).all() for one in some)


@pytest.mark.parametrize("number", [2, -1])
@pytest.mark.parametrize("option", ["layer", "head"])
def test_a_number_out_of_range_is_answered_with_the_range(
    trained: Checkpoint, option: str, number: int
) -> None:
    with pytest.raises(
        ConfigError, match=rf"^{option} {number}: the model has 2 {option}s, 0 to 1$"
    ):
        attention_maps(trained, TEXT, **{option: number})


def test_only_the_end_of_a_long_text_is_read(trained: Checkpoint, story: str) -> None:
    whole, end = attention_maps(trained, story[:50]), attention_maps(trained, story[18:50])
    assert (whole.window.left_out, len(whole.window.ids)) == (18, 32)
    assert (whole.heads[3].weights == end.heads[3].weights).all()


def test_unknown_characters_and_no_text_are_refused(trained: Checkpoint) -> None:
    with pytest.raises(TokenizerError, match="☃"):
        attention_maps(trained, "The ☃")
    with pytest.raises(ConfigError, match="empty"):
        attention_maps(trained, "")
