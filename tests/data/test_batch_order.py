"""An epoch's order, stored or computed; batches that are made ahead."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minigpt_cli.data import batches
from minigpt_cli.data.ahead import BatchesAhead
from minigpt_cli.data.batches import BatchSampler
from minigpt_cli.data.permutation import Permutation


def permutation(size: int, seed: int = 0) -> Permutation:
    return Permutation(size, np.random.default_rng(seed))


@given(size=st.integers(1, 3000), seed=st.integers(0, 2**31))
def test_computed_order_has_every_number_once(size: int, seed: int) -> None:
    assert sorted(permutation(size, seed).at(np.arange(size)).tolist()) == list(range(size))


def test_computed_order_is_a_function_of_its_key_alone() -> None:
    places = np.array([7, 0, 10**10 - 1, 7])
    found = permutation(10**10).at(places)
    assert found[0] == found[3]
    assert found.tolist() == permutation(10**10).at(places).tolist()
    assert found.tolist() != permutation(10**10, 1).at(places).tolist()
    assert max(found) < 10**10


def test_computed_order_looks_shuffled() -> None:
    size = 1 << 16
    order = permutation(size - 3).at(np.arange(size - 3)).astype(np.float64)
    moved = np.corrcoef(order, np.arange(size - 3))[0, 1]
    following = np.corrcoef(order[1:], order[:-1])[0, 1]
    assert abs(moved) < 0.02  # five standard deviations
    assert abs(following) < 0.02
    counts, _ = np.histogram(np.diff(order), bins=16, range=(-size, size))
    expected, _ = np.histogram(np.diff(np.random.default_rng(0).permutation(size - 3)), 16,
                               range=(-size, size))  # fmt: skip
    assert np.abs(counts - expected).max() < 6 * np.sqrt(expected.max())


def sampler(count: int = 2000, seed: int = 3) -> BatchSampler:
    return BatchSampler(np.arange(count, dtype=np.uint16), 4, 16, seed, "epochs")


def test_order_of_small_texts_is_that_of_earlier_versions() -> None:
    windows, found = 1999 // 16 - 1, sampler()
    for epoch in range(3):
        rng = np.random.default_rng([3, epoch])
        offset = rng.integers(0, 1999 - windows * 16 + 1)
        expected = offset + 16 * rng.permutation(windows)
        numbers = range(epoch * windows, (epoch + 1) * windows)
        starts = [int(found.starts(number // 4)[number % 4]) for number in numbers]
        assert starts == expected.tolist()


def test_an_epoch_of_a_computed_order_uses_each_window_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored = sampler().starts(0)
    monkeypatch.setattr(batches, "MOST_STORED", 100)
    windows, found = 1999 // 16 - 1, sampler()
    assert found.starts(0).tolist() != stored.tolist()
    starts = np.concatenate([found.starts(number) for number in range(windows // 2 + 1)])
    for epoch in (starts[:windows], starts[windows : 2 * windows]):
        assert sorted((epoch - epoch.min()) // 16) == list(range(windows))
        assert max(epoch) + 17 <= 2000


def test_batches_made_ahead_are_the_same_in_any_order() -> None:
    made: list[tuple[int, str]] = []

    def make(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        made.append((number, threading.current_thread().name))
        return sampler().batch(number)

    ahead = BatchesAhead(make, pin=False)
    for number in (0, 1, 2, 3, 3, 1, 40, 41):  # a run goes back to its last save, too
        x, y = ahead.batch(number)
        expected = sampler().batch(number)
        assert torch.equal(x, expected[0])
        assert torch.equal(y, expected[1])
    assert {name for _, name in made} == {"batches_0"}
    assert [number for number, _ in made[:4]] == [0, 1, 2, 3]  # what is not wanted may be dropped


def test_what_fails_ahead_is_raised_where_it_is_asked_for() -> None:
    def make(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        if number == 1:
            raise OSError("the disk is gone")
        return sampler().batch(number)

    ahead = BatchesAhead(make, pin=False)
    ahead.batch(0)
    with pytest.raises(OSError, match="the disk is gone"):
        ahead.batch(1)
