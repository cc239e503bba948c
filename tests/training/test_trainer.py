"""The training loop: what it computes does not depend on how it was interrupted or watched."""

import json
import math
from pathlib import Path

import pytest
import torch

from minigpt_cli.data.corpora.corpus import Corpus
from minigpt_cli.data.corpora.sources import TextFile
from minigpt_cli.data.dataset import Dataset, prepare_dataset
from minigpt_cli.errors import CheckpointError, CorpusError
from minigpt_cli.evaluation import evaluate
from minigpt_cli.runs.checkpoint import load_checkpoint, model_tensors
from minigpt_cli.runs.folder import RunFolder
from tests.helpers.training import (
    EVAL_INTERVAL,
    MAX_ITERS,
    Watcher,
    differences,
    new_trainer,
    resumed,
    rows,
    small_config,
    train,
    train_until,
)

pytestmark = pytest.mark.usefixtures("no_measuring")


@pytest.mark.parametrize("stop", [EVAL_INTERVAL + 1, 2 * EVAL_INTERVAL + 1])
def test_run_resumed_after_a_crash_equals_uninterrupted_run(
    dataset: Dataset, run: RunFolder, tmp_path: Path, stop: int
) -> None:
    (tmp_path / "whole").mkdir()
    whole = train(small_config(), dataset, RunFolder(tmp_path / "whole"))
    assert train_until(stop, "crash", small_config(), dataset, run) is None
    with run.metrics.open("a") as file:
        file.write('{"type": "step", "st')  # the crash came in the middle of a line
    again = resumed(small_config(), dataset, run)
    assert again.state.step == stop - 1  # the last evaluation, just before
    again.fit(Watcher())
    assert differences(again, whole) == []
    assert rows(run) == rows(RunFolder(tmp_path / "whole"))


@pytest.mark.parametrize("stop", [3, EVAL_INTERVAL + 3])
def test_the_state_is_saved_between_evaluations_too(
    dataset: Dataset, run: RunFolder, stop: int
) -> None:
    config = small_config("train.save_every_seconds=1e-9")
    assert train_until(stop, "crash", config, dataset, run) is None
    again = resumed(config, dataset, run)
    assert again.state.step == stop - 1  # saved after every step, however long it took
    again.fit(Watcher())
    assert differences(again, train(small_config(), dataset), files=False) == []


def test_the_state_is_not_saved_before_its_time(dataset: Dataset, run: RunFolder) -> None:
    config = small_config("train.save_every_seconds=3600.0")
    assert train_until(3, "crash", config, dataset, run) is None
    assert resumed(config, dataset, run).state.step == 0  # saved before the first step only


def test_run_interrupted_at_every_step_equals_uninterrupted_run(
    dataset: Dataset, run: RunFolder
) -> None:
    whole = train(small_config(), dataset)
    assert train_until(1, "asked", small_config(), dataset, run)
    for stop in range(2, MAX_ITERS + 1):
        again = resumed(small_config(), dataset, run)
        watcher = Watcher(lambda step, trainer=again: setattr(trainer, "stop_requested", True))  # type: ignore[misc]
        assert again.fit(watcher).step == stop
        assert [report.step for report in watcher.steps] == [stop]
    assert differences(again, whole) == []


@pytest.mark.parametrize(
    "otherwise",
    ["train.sample_tokens=20", "train.eval_interval=1", "train.eval_interval=12",
     "train.eval_tokens=16", "train.log_interval=1"],
)  # fmt: skip
def test_watching_does_not_disturb_training(dataset: Dataset, otherwise: str) -> None:
    plain, watched = (train(small_config(*o), dataset) for o in ([], [otherwise]))
    weights = watched.learner.model.state_dict()
    assert all(
        torch.equal(w, weights[name]) for name, w in plain.learner.model.state_dict().items()
    )


@pytest.mark.parametrize("setting", ["train.seed=8", "model.dropout=0.0", "data.sampling=random"])
def test_other_settings_train_other_weights(dataset: Dataset, setting: str) -> None:
    one, other = (train(small_config(*o), dataset) for o in ([], [setting]))
    assert not torch.equal(one.learner.model.head.weight, other.learner.model.head.weight)


def test_accumulated_batches_train_like_one_large_batch(dataset: Dataset) -> None:
    settings = ["model.dropout=0.0", "optimizer.name=adamw"]
    many = train(small_config(*settings), dataset)  # 2 batches of 4 a step
    one = train(small_config(*settings, "train.batch_size=8", "train.grad_accum_steps=1"), dataset)
    assert many.learner.tokens_per_step == one.learner.tokens_per_step == 8 * 8
    for ours, theirs in zip(many.state.recent_losses, one.state.recent_losses, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_training_lowers_the_loss(dataset: Dataset) -> None:
    trainer = new_trainer(small_config("train.max_iters=60", "model.dropout=0.0"), dataset)
    before = evaluate(trainer.learner.model, dataset.tokenizer, dataset.tokens("val")).loss
    trainer.fit(Watcher())
    after = evaluate(trainer.learner.model, dataset.tokenizer, dataset.tokens("val")).loss
    assert before == pytest.approx(math.log(dataset.tokenizer.vocab_size), abs=0.05)
    assert after < before - 0.5


def test_metrics_hold_every_logged_step_and_evaluation(dataset: Dataset, run: RunFolder) -> None:
    config = small_config("train.log_interval=1", "optimizer.schedule=constant")
    trainer = new_trainer(config, dataset, run)
    watcher = Watcher()
    trainer.fit(watcher)
    found = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    steps = [row for row in found if row["type"] == "step"]
    evaluations = [row for row in found if row["type"] == "evaluation"]

    assert [row["step"] for row in steps] == list(range(1, MAX_ITERS + 1))
    assert [row["step"] for row in evaluations] == [5, 10, 12]
    assert [row["learning_rate"] for row in steps[:4]] == pytest.approx(
        [0.02 / 3, 0.04 / 3, 0.02, 0.02]
    )
    losses = [row["loss"] for row in steps]
    assert losses == [report.loss for report in watcher.steps]
    for row in evaluations:
        so_far = losses[: row["step"]]
        assert row["train_loss"] == pytest.approx(sum(so_far) / len(so_far))
    with trainer.learner.evaluated_model() as model:
        last = evaluate(model, dataset.tokenizer, dataset.tokens("val"))
    assert evaluations[-1]["val_loss"] == last.loss
    assert evaluations[-1]["bits_per_byte"] == last.bits_per_byte
    lowest = math.inf
    for row in evaluations:
        assert row["is_best"] == (row["val_loss"] < lowest)
        lowest = min(lowest, row["val_loss"])
    assert all(row["tokens_per_second"] > 0 for row in steps + evaluations)
    assert [row["elapsed"] for row in evaluations] == sorted(row["elapsed"] for row in evaluations)


def test_only_every_log_interval_is_logged(dataset: Dataset, run: RunFolder) -> None:
    train(small_config(), dataset, run)  # logs every 3rd, evaluates every 5th
    steps = [row["step"] for row in rows(run) if row["type"] == "step"]
    assert steps == [1, 3, 5, 6, 9, 10, 12]


def test_best_checkpoint_is_the_best(dataset: Dataset, run: RunFolder) -> None:
    trainer = new_trainer(small_config(), dataset, run)

    def spoil(step: int) -> None:
        if step == EVAL_INTERVAL + 1:
            with torch.no_grad():
                trainer.learner.model.head.weight.normal_(std=3.0)

    watcher = Watcher(spoil)
    result = trainer.fit(watcher)
    assert [report.is_best for report in watcher.evaluations] == [True, False, False]
    assert (result.best_step, result.step) == (EVAL_INTERVAL, MAX_ITERS)
    best = load_checkpoint(run.checkpoint)
    again = evaluate(best.model, best.tokenizer, dataset.tokens("val"))
    assert best.metadata.step == EVAL_INTERVAL
    lowest = min(report.val_loss for report in watcher.evaluations)
    assert best.metadata.val_loss == result.best_val_loss == again.loss == lowest


def test_checkpoint_records_all_settings_of_its_run(dataset: Dataset, run: RunFolder) -> None:
    config = small_config("train.seed=3")
    train(config, dataset, run)
    assert load_checkpoint(run.checkpoint).metadata.config == config


def test_run_stopped_before_any_evaluation_leaves_a_usable_checkpoint(
    dataset: Dataset, run: RunFolder
) -> None:
    train_until(2, "asked", small_config(), dataset, run)
    found = load_checkpoint(run.checkpoint)
    assert (found.metadata.step, found.metadata.val_loss) == (2, None)


def test_state_holds_the_latest_weights_and_nothing_pickled(
    dataset: Dataset, run: RunFolder
) -> None:
    from safetensors.torch import load_file

    trainer = train(small_config(), dataset, run)
    tensors = load_file(run.state)  # would refuse a pickle
    for name, weight in model_tensors(trainer.learner.model).items():
        assert torch.equal(tensors[f"model.{name}"], weight)


def test_each_evaluation_is_followed_by_a_sample_of_the_asked_length_at_most(
    dataset: Dataset,
) -> None:
    watcher = Watcher()
    new_trainer(small_config("train.sample_tokens=20"), dataset).fit(watcher)
    assert len(watcher.samples) == len(watcher.evaluations) == 3
    # A token is a character here; a text that breaks off ends in a space and an ellipsis.
    assert all(0 < len(text) <= 20 + len(" …") for text in watcher.samples)


def test_run_goes_on_beyond_its_first_end(dataset: Dataset, run: RunFolder) -> None:
    train(small_config(), dataset, run)
    longer = resumed(small_config("train.max_iters=15"), dataset, run)
    assert longer.fit(Watcher()).step == 15
    finished = resumed(small_config("train.max_iters=15"), dataset, run).fit(Watcher())
    assert (finished.step, finished.finished) == (15, True)


def test_state_of_another_text_is_refused(
    dataset: Dataset, run: RunFolder, tmp_path: Path, story: str
) -> None:
    train(small_config(), dataset, run)
    other = tmp_path / "other.txt"
    other.write_text(story + "The end.\n", encoding="utf-8")
    changed = prepare_dataset(
        Corpus("story", (TextFile(other),)), small_config().data, tmp_path / "data"
    )
    with pytest.raises(CheckpointError, match="another text or tokenizer") as caught:
        resumed(small_config(), changed, run)
    assert dataset.metadata.fingerprint in str(caught.value)
    assert changed.metadata.fingerprint in str(caught.value)


def test_state_of_another_shape_and_a_checkpoint_in_its_place_are_refused(
    dataset: Dataset, run: RunFolder
) -> None:
    train(small_config(), dataset, run)
    with pytest.raises(
        CheckpointError, match=r"the tensor .* needs .*restore a backup, or train again"
    ):
        resumed(small_config("model.n_embd=32"), dataset, run)
    run.state.write_bytes(run.checkpoint.read_bytes())
    with pytest.raises(CheckpointError, match="not the state of a run"):
        resumed(small_config(), dataset, run)


def test_text_shorter_than_a_block_says_how_much_it_needs(dataset: Dataset) -> None:
    with pytest.raises(CorpusError) as caught:
        new_trainer(small_config("model.block_size=5000"), dataset)
    assert f"has {dataset.metadata.train_tokens} tokens" in str(caught.value)
    assert "at least 5001" in str(caught.value)
