"""Threads are chosen by timing, once; steps that become slow are noticed, once."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from minigpt_cli.data.dataset import Dataset
from minigpt_cli.device import choose_threads
from minigpt_cli.training.learner import Learner
from minigpt_cli.training.speed import Slowdown, StepTimes, expected_seconds, training_threads
from tests.helpers.training import Watcher, differences, new_trainer, small_config, train

pytestmark = pytest.mark.usefixtures("no_measuring")


@pytest.fixture
def threads() -> Any:
    """Lets a test change the number of threads."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def learner_that_takes(seconds: dict[int, float], flops: float = 1e9) -> Any:
    return SimpleNamespace(
        rehearse=lambda: seconds[torch.get_num_threads()],
        flops_per_token=flops,
        tokens_per_step=2,
        config=small_config(),  # two passes a step
    )


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({2: 0.051, 1: 0.087}, 2),  # an idle machine
        ({2: 0.202, 1: 0.086}, 1),  # one busy neighbor
        ({2: 0.087, 1: 0.086}, 2),  # no clear gain
        ({2: 9.0, 1: 0.3}, 1),  # several, that slow even the first pass to a crawl
    ],
)
def test_fastest_number_of_threads_is_chosen(
    threads: Any, seconds: dict[int, float], chosen: int
) -> None:
    threads(2)
    assert training_threads(learner_that_takes(seconds)) == chosen
    assert torch.get_num_threads() == chosen


def test_large_models_use_all_threads_unasked(threads: Any) -> None:
    threads(2)
    assert training_threads(learner_that_takes({2: 9.0, 1: 1.0}, 1e12)) == 2


def test_slow_work_is_timed_twice_and_quick_work_often(threads: Any) -> None:
    threads(2)
    calls: list[int] = []

    def work(seconds: float) -> float:
        calls.append(torch.get_num_threads())
        return seconds

    choose_threads(lambda: work(3.0), 0.5)
    assert calls == [2, 2, 1, 1]
    calls.clear()
    choose_threads(lambda: work(0.01), 0.5)
    assert calls == 6 * [2] + 6 * [1]


def test_one_thread_is_enough_for_negligible_work(threads: Any) -> None:
    threads(2)
    calls: list[int] = []

    def work(seconds: float) -> float:
        calls.append(torch.get_num_threads())
        return seconds

    assert choose_threads(lambda: work(0.001), 0.5, negligible=0.002) == 1
    assert calls == [1, 1]
    assert torch.get_num_threads() == 1
    threads(2)
    calls.clear()
    assert choose_threads(lambda: work(3.0), 0.5, negligible=0.002) == 2
    assert calls == [1, 1, 2, 2, 1, 1]


def test_rehearsing_learns_nothing_and_changes_no_step(dataset: Dataset) -> None:
    whole = train(small_config(), dataset)
    rehearsed = new_trainer(small_config(), dataset)
    training_threads(rehearsed.learner)
    assert expected_seconds(rehearsed.learner, 10) > 0
    rehearsed.fit(Watcher())
    assert differences(rehearsed, whole) == []


def test_expected_time_grows_with_the_steps(dataset: Dataset) -> None:
    learner = Learner(small_config(), dataset)
    learner.rehearse = lambda: 0.5  # type: ignore[method-assign]
    # Two micro-batches a step.
    assert expected_seconds(learner, 100) == pytest.approx(100 * 2 * 0.5, rel=0.3)


def said(times: list[float]) -> list[Slowdown]:
    watch = StepTimes()
    return [slow for seconds in times if (slow := watch.add(seconds)) is not None]


def test_slow_steps_are_noticed_once() -> None:
    found = said([5.0, 0.1, 0.1] + 60 * [0.05] + 200 * [0.12])
    assert [(slow.seconds_before, slow.seconds_now) for slow in found] == [(0.05, 0.12)]


@pytest.mark.parametrize(
    "times",
    [
        [5.0] + 300 * [0.05],  # the first step allocates
        100 * [0.05, 0.05, 0.05, 0.5],  # single slow ones
        100 * [0.05] + 100 * [0.09],
        100 * [0.2] + 100 * [0.05],  # faster
    ],
)
def test_other_steps_are_not_called_slow(times: list[float]) -> None:
    assert said(times) == []


def test_reporter_hears_of_slow_steps(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Slowdown] = []
    trainer, watcher = new_trainer(small_config(), dataset), Watcher()
    watcher.slowed = heard.append  # type: ignore[method-assign, assignment]
    monkeypatch.setattr(trainer._step_times, "add", lambda _: Slowdown(0.1, 0.3))
    trainer.fit(watcher)
    assert heard


def test_choice_is_recorded_with_the_run(tmp_path: Path, dataset: Dataset) -> None:
    from minigpt_cli.config.loading import load_run_config
    from minigpt_cli.training.setup import train as train_request

    overrides = {
        "data.corpus": str(tmp_path / "story.txt"), "train.max_iters": 2,
        "train.sample_tokens": 0, "train.device": "cpu",
    }  # fmt: skip
    result = train_request("tiny", overrides, out=tmp_path / "out", data_dir=tmp_path / "data")
    recorded = load_run_config(str(result.run / "config.toml")).train.threads
    assert recorded == torch.get_num_threads()
