"""A run killed anywhere and resumed ends like an uninterrupted one, bit for bit."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from minigpt_cli.config.choices import TokenizerKind
from minigpt_cli.config.schema import RunConfig
from minigpt_cli.data.corpora.corpus import Corpus
from minigpt_cli.data.corpora.sources import TextFile
from minigpt_cli.data.dataset import Dataset, prepare_dataset
from minigpt_cli.evaluation import evaluate
from minigpt_cli.generation.sampling import Sampling
from minigpt_cli.generation.text import ModelAndTokenizer, generate
from minigpt_cli.runs.folder import RunFolder
from minigpt_cli.training import trainer as trainer_module
from minigpt_cli.training.optimizers.adamw import AdamW
from minigpt_cli.training.optimizers.averages import WeightAverage
from minigpt_cli.training.optimizers.muon import Muon
from minigpt_cli.training.optimizers.updater import Updater
from minigpt_cli.training.state import TrainState
from minigpt_cli.training.trainer import Trainer
from tests.helpers.seeds import seed
from tests.helpers.training import (
    EVAL_INTERVAL,
    MAX_ITERS,
    Crash,
    Watcher,
    differences,
    new_trainer,
    resumed,
    small_config,
    train,
    train_until,
)

pytestmark = pytest.mark.usefixtures("no_measuring")


@dataclass(frozen=True)
class Case:
    """One cell of the matrix."""

    def __str__(self) -> str:
        return "-".join(map(str, vars(self).values()))

    how: str
    family: str
    optimizer: str
    schedule: str
    tokenizer: TokenizerKind
    dropout: float
    accumulation: int
    precision: str

    @property
    def overrides(self) -> list[str]:
        return [
            f"model.family={self.family}",
            f"optimizer.name={self.optimizer}",
            f"optimizer.schedule={self.schedule}",
            f"data.tokenizer={self.tokenizer}",
            f"model.dropout={self.dropout}",
            f"train.grad_accum_steps={self.accumulation}",
            f"train.precision={self.precision}",
            "train.sample_tokens=5",
            *(["data.vocab_size=300"] if self.tokenizer == "bpe" else []),
        ]


def stopped(config: RunConfig, dataset: Dataset, run: RunFolder, chance: random.Random) -> None:
    """Stops on request: the step is finished and saved."""
    train_until(chance.randrange(1, MAX_ITERS), "asked", config, dataset, run)


def crashed(config: RunConfig, dataset: Dataset, run: RunFolder, chance: random.Random) -> None:
    """Dies after a step that was not saved."""
    train_until(chance.randrange(1, MAX_ITERS), "crash", config, dataset, run)


def twice(config: RunConfig, dataset: Dataset, run: RunFolder, chance: random.Random) -> None:
    """Dies, is resumed, and dies again."""
    first = chance.randrange(1, MAX_ITERS - 1)
    train_until(first, "crash", config, dataset, run)
    again = resumed(config, dataset, run)
    second = chance.randrange(again.state.step + 1, MAX_ITERS)

    def die(step: int) -> None:
        if step == second:
            raise Crash

    with pytest.raises(Crash):
        again.fit(Watcher(die))


def _dies_inside(name: str) -> Callable[[RunConfig, Dataset, RunFolder, random.Random], None]:
    def interrupt(
        config: RunConfig, dataset: Dataset, run: RunFolder, chance: random.Random
    ) -> None:
        calls = iter(range(1, 100))
        fatal, real = chance.choice((1, 2, 3)), getattr(trainer_module, name)

        def dies(*arguments: Any) -> Any:
            number = next(calls)
            if number == fatal and fatal % 2:
                raise Crash  # at its beginning, or else at its end
            result = real(*arguments)
            if number == fatal:
                raise Crash
            return result

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainer_module, name, dies)
            with pytest.raises(Crash):
                new_trainer(config, dataset, run).fit(Watcher())

    return interrupt


WAYS = {
    "stopped": stopped,
    "crashed": crashed,
    "twice": twice,
    "inside an evaluation": _dies_inside("evaluate"),
    "inside a sample": _dies_inside("generate"),
}
MATRIX = [
    Case(*cell)
    for cell in product(
        WAYS,
        ("classic", "modern"),
        ("adamw", "muon"),
        ("constant", "cosine", "wsd"),
        [kind for kind in get_args(TokenizerKind) if kind != "pretrained"],
        (0.0, 0.2),
        (1, 2),
        ("fp32", "bf16"),
    )
]


def check(case: Case, chance: random.Random, folder: Path, story: str) -> None:
    """Runs the case twice, once interrupted and resumed."""
    config = small_config(*case.overrides)
    text = folder / "story.txt"
    text.write_text(story, encoding="utf-8")
    dataset = prepare_dataset(Corpus("story", (TextFile(text),)), config.data, folder / "data")
    whole, parts = RunFolder(folder / "whole"), RunFolder(folder / "parts")
    for run in (whole, parts):
        run.path.mkdir()
    expected = train(config, dataset, whole)
    WAYS[case.how](config, dataset, parts, chance)
    again = resumed(config, dataset, parts)
    assert again.fit(Watcher()).finished
    assert differences(again, expected) == []


@pytest.mark.parametrize("case", random.Random(5).sample(MATRIX, 16), ids=str)
def test_resumed_run_equals_uninterrupted_run(case: Case, tmp_path: Path, story: str) -> None:
    check(case, random.Random(str(case)), tmp_path, story)


@pytest.mark.slow
@pytest.mark.parametrize("how", WAYS)
def test_resumed_run_equals_uninterrupted_run_in_many_cells(
    how: str, tmp_path: Path, story: str
) -> None:
    chance = random.Random(seed())
    for case in chance.sample([case for case in MATRIX if case.how == how], 60):
        folder = tmp_path / str(case)
        folder.mkdir()
        check(case, chance, folder, story)


# Each thing that resuming restores is taken away in turn: the comparison must notice.

WILD = (
    "optimizer.schedule=constant",
    "optimizer.warmup_iters=0",
    "optimizer.learning_rate=0.3",
    "optimizer.adamw_learning_rate=0.1",
    "train.seed=8",
)
STOP = 2 * EVAL_INTERVAL + 1
"""A step after the best evaluation of a run with such large learning rates, before its end."""


def forget_memory(kind: type[Updater], key: str) -> Callable[[Trainer], None]:
    def forget(again: Trainer) -> None:
        (part,) = [p for p in again.learner.optimizer._stateful if isinstance(p, kind)]
        for state in part.state.values():
            state[key].zero_()

    return forget


def forget_field(name: str) -> Callable[[Trainer], None]:
    def forget(again: Trainer) -> None:
        setattr(again.state, name, getattr(TrainState(), name))

    return forget


MUTATIONS = {
    **{
        f"optimizer {key}": forget_memory(kind, key)
        for kind in (Muon, AdamW, WeightAverage)
        for key in kind.state_has_shape
    },
    **{
        f"state {name}": forget_field(name)
        for name in (
            "step",
            "best_val_loss",
            "best_step",
            "recent_losses",
            "skipped",
        )
    },
}


@pytest.fixture
def halfway(dataset: Dataset, tmp_path: Path) -> tuple[Trainer, Callable[[str], Trainer]]:
    """An uninterrupted run, and a way to resume copies of a stopped one; both skipped a batch."""
    config = small_config(*WILD)
    (tmp_path / "whole").mkdir()
    whole = new_trainer(config, dataset, RunFolder(tmp_path / "whole"))
    whole.state.skipped = [STOP + 1]
    whole.fit(Watcher())
    assert whole.state.best_step < STOP, "or forgetting the best would not matter"

    def resume(name: str) -> Trainer:
        run = RunFolder(tmp_path / name)
        run.path.mkdir()
        trainer = new_trainer(config, dataset, run)
        trainer.state.skipped = [STOP + 1]
        watcher = Watcher(lambda step: setattr(trainer, "stop_requested", step == STOP))
        assert trainer.fit(watcher).step == STOP
        return resumed(config, dataset, run)

    return whole, resume


def test_complete_restore_shows_no_difference(
    halfway: tuple[Trainer, Callable[[str], Trainer]],
) -> None:
    whole, resume = halfway
    again = resume("parts")
    again.fit(Watcher())
    assert differences(again, whole) == []


@pytest.mark.slow
@pytest.mark.parametrize("what", MUTATIONS)
def test_each_restored_item_is_needed(
    what: str, halfway: tuple[Trainer, Callable[[str], Trainer]], dataset: Dataset
) -> None:
    whole, resume = halfway
    again = resume("parts")
    MUTATIONS[what](again)
    again.fit(Watcher())
    assert differences(again, whole) != []


def test_cutting_the_metrics_is_needed(
    dataset: Dataset, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    whole = train(small_config(), dataset, RunFolder(tmp_path / "whole"))
    train_until(EVAL_INTERVAL + 3, "crash", small_config(), dataset, run)
    monkeypatch.setattr(RunFolder, "cut_metrics", lambda *_: None)
    again = resumed(small_config(), dataset, run)
    again.fit(Watcher())
    assert differences(again, whole) == ["metrics"]


@pytest.mark.slow
def test_each_restored_weight_is_needed(
    halfway: tuple[Trainer, Callable[[str], Trainer]], dataset: Dataset
) -> None:
    whole, resume = halfway
    fresh = new_trainer(small_config("train.seed=8"), dataset)
    for number, name in enumerate(fresh.learner.model.state_dict()):
        again = resume(str(number))
        again.learner.model.load_state_dict(
            {name: fresh.learner.model.state_dict()[name]}, strict=False
        )
        again.fit(Watcher())
        assert differences(again, whole) != [], name


def test_every_field_of_the_state_is_restored_or_a_clock() -> None:
    clocks = {"elapsed", "step_seconds"}
    patience = {"evaluations_since_best"}  # see test_patience_counts_on_after_a_crash
    tried = {what.removeprefix("state ") for what in MUTATIONS if what.startswith("state ")}
    assert tried | clocks | patience == set(vars(TrainState()))


def test_clocks_continue_where_they_stopped(dataset: Dataset, run: RunFolder) -> None:
    first = train_until(6, "asked", small_config(), dataset, run)
    assert first is not None
    again = resumed(small_config(), dataset, run)
    result = again.fit(Watcher())
    assert result.elapsed > first.elapsed > 0
    assert result.step_seconds > first.step_seconds > 0


def test_evaluating_and_sampling_leave_the_training_generator_alone(dataset: Dataset) -> None:
    trainer = train(small_config(), dataset)
    before = torch.get_rng_state()
    evaluate(trainer.learner.model, dataset.tokenizer, dataset.tokens("val"))
    writer = ModelAndTokenizer(trainer.learner.model, dataset.tokenizer)
    "".join(generate(writer, "", 20, Sampling()))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resumed_run_with_two_threads_equals_uninterrupted_run(
    dataset: Dataset, run: RunFolder, tmp_path: Path, precision: str
) -> None:
    before = torch.get_num_threads()
    config = small_config("train.threads=2", f"train.precision={precision}", "model.n_embd=64")
    (tmp_path / "whole").mkdir()
    try:
        whole = train(config, dataset, RunFolder(tmp_path / "whole"))
        train_until(7, "asked", config, dataset, run)
        torch.set_num_threads(1)
        again = resumed(config, dataset, run)
        again.fit(Watcher())
        assert differences(again, whole) == []
    finally:
        torch.set_num_threads(before)
