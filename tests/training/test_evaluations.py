"""A run can be watched: enough evaluations, cheap ones, and like compared with like."""

from itertools import pairwise
from pathlib import Path

import pytest

from minigpt_cli.config.loading import load_run_config
from minigpt_cli.config.presets import preset_names
from minigpt_cli.config.schema import TrainConfig
from minigpt_cli.data.corpora.corpus import Corpus
from minigpt_cli.data.corpora.sources import TextFile
from minigpt_cli.data.dataset import Dataset, prepare_dataset
from minigpt_cli.evaluation import evaluate
from minigpt_cli.runs.checkpoint import load_checkpoint
from minigpt_cli.runs.folder import RunFolder
from minigpt_cli.training.schedule import evaluates
from tests.helpers.training import (
    Watcher,
    differences,
    new_trainer,
    resumed,
    small_config,
    train,
    train_until,
)

pytestmark = pytest.mark.usefixtures("no_measuring")


def evaluated(train: TrainConfig) -> list[int]:
    return [step for step in range(1, train.max_iters + 1) if evaluates(train, step)]


@pytest.mark.parametrize("max_iters", [6, 7, 49, 50, 51, 60, 299, 300, 301, 999, 1000, 12_345])
def test_automatic_evaluations_are_six_at_least_and_begin_early(max_iters: int) -> None:
    steps = evaluated(TrainConfig(max_iters=max_iters))
    assert len(steps) >= 6
    assert steps[0] <= 50
    assert steps[-1] == max_iters
    assert max(b - a for a, b in pairwise(steps)) <= 500


def test_interval_that_was_asked_for_is_kept() -> None:
    assert evaluated(TrainConfig(max_iters=100, eval_interval=40)) == [40, 80, 100]


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_can_be_watched(preset: str) -> None:
    steps = evaluated(load_run_config(preset).train)
    assert len(steps) >= 6
    assert steps[0] <= 50


def test_evaluations_of_small_cost_little() -> None:
    """Predicting a token takes a third of learning from it. Shakespeare: 111,540 for validation."""
    config = load_run_config("small")
    tokens = (len(evaluated(config.train))) * config.train.eval_tokens + 111_540
    learned = config.train.max_iters * config.train.batch_size * config.model.block_size
    assert tokens / 3 < 0.03 * learned


@pytest.fixture
def long_text(tmp_path: Path, story: str) -> Dataset:
    """Its validation part is longer than what an evaluation reads."""
    path = tmp_path / "long.txt"
    path.write_text(3 * story, encoding="utf-8")
    return prepare_dataset(
        Corpus("long", (TextFile(path),)), small_config().data, tmp_path / "data"
    )


def test_last_evaluation_reads_the_whole_split(long_text: Dataset, run: RunFolder) -> None:
    config = small_config("train.eval_tokens=64", "train.max_iters=80", "train.batch_size=32")
    trainer = new_trainer(config, long_text, run)
    watcher = Watcher()
    trainer.fit(watcher)
    *before, last = watcher.evaluations
    assert {row.val_tokens for row in before} == {64}
    assert all(row.compared_val_loss is None for row in before)
    with trainer.learner.evaluated_model() as model:
        whole = evaluate(model, long_text.tokenizer, long_text.tokens("val"))
        part = evaluate(model, long_text.tokenizer, long_text.tokens("val"), 64)
    assert (last.val_loss, last.val_tokens) == (whole.loss, whole.tokens)
    assert last.compared_val_loss == last.comparable_loss == part.loss


def test_best_model_is_chosen_among_losses_on_the_same_tokens(
    long_text: Dataset, run: RunFolder
) -> None:
    config = small_config("train.eval_tokens=64", "train.max_iters=80", "train.batch_size=32")
    trainer = new_trainer(config, long_text, run)
    watcher = Watcher()
    result = trainer.fit(watcher)
    best = min(watcher.evaluations, key=lambda row: row.comparable_loss)
    assert (result.best_step, result.best_val_loss) == (best.step, best.val_loss)
    said = load_checkpoint(run.checkpoint).metadata.val_loss
    assert said == best.val_loss


def test_last_evaluation_of_a_long_text_stays_cheap(long_text: Dataset) -> None:
    config = small_config("train.eval_tokens=16", "train.eval_interval=4")
    watcher = Watcher()
    trainer = new_trainer(config, long_text)
    trainer.fit(watcher)
    learned = trainer.learner.tokens_per_step * config.train.max_iters
    assert len(long_text.tokens("val")) > learned // 10
    tokens = watcher.evaluations[-1].val_tokens
    assert tokens is not None
    assert tokens <= learned // 10


PATIENT = ("train.patience=2", "train.eval_interval=2", "optimizer.learning_rate=3.0",
           "train.max_iters=60", "optimizer.adamw_learning_rate=1.0")  # fmt: skip


def test_patience_ends_a_run_that_no_longer_improves(dataset: Dataset) -> None:
    watcher = Watcher()
    result = new_trainer(small_config(*PATIENT), dataset).fit(watcher)
    assert result.finished
    assert result.stopped_early
    assert result.step < 60
    assert result.step == result.best_step + 2 * 2
    assert not any(row.is_best for row in watcher.evaluations[-2:])


def test_patience_counts_on_after_a_crash(dataset: Dataset, run: RunFolder) -> None:
    config = small_config(*PATIENT)
    whole = train(config, dataset)
    assert train_until(whole.state.step - 1, "crash", config, dataset, run) is None
    again = resumed(config, dataset, run)
    again.fit(Watcher())
    assert differences(again, whole, files=False) == []
