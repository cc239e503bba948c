"""A non-finite loss or gradient changes nothing: the run continues without the batch."""

import contextlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt_cli.config.schema import RunConfig
from minigpt_cli.data.dataset import Dataset
from minigpt_cli.errors import CheckpointError, TrainingError
from minigpt_cli.evaluation import evaluate
from minigpt_cli.runs.folder import RunFolder
from minigpt_cli.runs.metrics import Row
from minigpt_cli.training.planning import estimate
from minigpt_cli.training.stability import MAX_REWINDS, NotFinite, spike_z_score
from minigpt_cli.training.trainer import Trainer
from tests.helpers.training import (
    EVAL_INTERVAL,
    MAX_ITERS,
    Crash,
    Watcher,
    differences,
    new_trainer,
    resumed,
    rows,
)
from tests.helpers.training import small_config as plain_config

pytestmark = pytest.mark.usefixtures("no_measuring")
BAD = EVAL_INTERVAL + 3


def small_config(*overrides: str) -> RunConfig:
    return plain_config("optimizer.schedule=constant", *overrides)


def poisoned(
    trainer: Trainer, steps: set[int], poison: Callable[[torch.Tensor], torch.Tensor]
) -> Trainer:
    """A trainer whose loss is passed through `poison` at some steps."""
    forward = trainer.learner.model.forward

    def bad(idx: torch.Tensor, targets: torch.Tensor | None = None, *rest: object) -> torch.Tensor:
        loss = forward(idx, targets, *rest)  # type: ignore[arg-type]
        training = targets is not None
        return poison(loss) if training and trainer.state.step + 1 in steps else loss

    trainer.learner.model.forward = bad  # type: ignore[method-assign,assignment]
    return trainer


def to_nan(loss: torch.Tensor) -> torch.Tensor:
    return loss * math.nan


def to_infinity(loss: torch.Tensor) -> torch.Tensor:
    return loss + math.inf


def to_steep(loss: torch.Tensor) -> torch.Tensor:
    """Leaves the loss as it is and makes its gradient infinite."""
    return loss + (loss - loss.detach()) * 1e38 * 1e38


def without(steps: list[int], config: RunConfig, dataset: Dataset, folder: RunFolder) -> Trainer:
    """A run told from the start which batches to skip."""
    folder.path.mkdir()
    trainer = new_trainer(config, dataset, folder)
    trainer.state.skipped = steps
    assert trainer.fit(Watcher()).finished
    return trainer


@pytest.mark.parametrize("poison", [to_nan, to_infinity, to_steep])
@pytest.mark.parametrize("bad", [1, BAD, MAX_ITERS])
def test_run_with_a_bad_batch_equals_one_that_left_it_out(
    dataset: Dataset, run: RunFolder, tmp_path: Path, poison: Callable[..., torch.Tensor], bad: int
) -> None:
    trainer = poisoned(new_trainer(small_config(), dataset, run), {bad}, poison)
    watcher = Watcher()
    assert trainer.fit(watcher).finished
    assert trainer.state.skipped == [bad]
    assert len(watcher.notes) == 1
    assert f"at step {bad}: rewound to step" in watcher.notes[0]
    expected = without([bad], small_config(), dataset, RunFolder(tmp_path / "expected"))
    assert differences(trainer, expected) == ["metrics"]  # they tell of the rewind
    told = [row for row in rows(run) if row["type"] == "rewind"]
    assert [row["skipped"] for row in told] == [bad]
    assert [row for row in rows(run) if row["type"] != "rewind"] == rows(expected.folder)


def test_update_of_a_bad_step_is_not_applied(dataset: Dataset) -> None:
    trainer = poisoned(new_trainer(small_config(), dataset), {1}, to_steep)
    before = {name: weight.clone() for name, weight in trainer.learner.model.state_dict().items()}
    with pytest.raises(NotFinite, match=r"gradient norm is (inf|nan) at step 1"):
        trainer.learner.take_step(0)
    assert all(torch.equal(w, before[n]) for n, w in trainer.learner.model.state_dict().items())
    assert trainer.learner.optimizer.state_tensors() == {}


@pytest.mark.parametrize("bad", [[BAD], [3, 2], [EVAL_INTERVAL, 9], [9, 8, 7]])
def test_late_check_on_an_accelerator_gives_the_same_result(
    dataset: Dataset, run: RunFolder, tmp_path: Path, bad: list[int]
) -> None:
    config = small_config("train.log_interval=4")
    trainer = poisoned(new_trainer(config, dataset, run), {*bad}, to_nan)
    trainer.learner.check_interval = 4  # as where reading a loss would make the processor wait
    assert trainer.fit(Watcher()).finished
    assert trainer.state.skipped == sorted(bad)
    expected = without(sorted(bad), config, dataset, RunFolder(tmp_path / "expected"))
    assert differences(trainer, expected) == ["metrics"]


def test_spoiled_weights_are_restored(dataset: Dataset, run: RunFolder) -> None:
    trainer = new_trainer(small_config(), dataset, run)
    once = iter([True])

    def spoil(step: int) -> None:
        if step == EVAL_INTERVAL + 1 and next(once, False):
            with torch.no_grad():
                trainer.learner.model.get_parameter("norm.weight").fill_(math.nan)

    watcher = Watcher(spoil)
    assert trainer.fit(watcher).finished
    assert trainer.state.skipped == [EVAL_INTERVAL + 2]
    assert f"rewound to step {EVAL_INTERVAL}," in watcher.notes[0]


@pytest.mark.parametrize(
    ("at", "how", "saved"),
    [
        (EVAL_INTERVAL + 1, "stop", EVAL_INTERVAL),
        (EVAL_INTERVAL + 1, "time", EVAL_INTERVAL),
        (2 * EVAL_INTERVAL, "evaluation", EVAL_INTERVAL),
    ],
)
def test_spoiled_weights_are_never_saved(
    dataset: Dataset, run: RunFolder, at: int, how: str, saved: int
) -> None:
    trainer = new_trainer(small_config(), dataset, run)

    def spoil(step: int) -> None:
        if step == at:
            with torch.no_grad():  # the rarest characters: no loss need notice
                trainer.learner.model.token_embedding.weight[-3:] = math.inf
            trainer.stop_requested = how == "stop"
            if how == "time":
                trainer._saved_at = -math.inf
        elif trainer.state.skipped:
            raise Crash  # what is saved now is what matters

    with contextlib.suppress(Crash):
        trainer.fit(Watcher(spoil))
    assert trainer.state.skipped == [at]
    assert resumed(small_config(), dataset, run).state.step == saved
    weights = resumed(small_config(), dataset, run).learner.model.state_dict().values()
    assert all(weight.isfinite().all() for weight in weights)


def test_bad_validation_loss_rewinds_too(
    dataset: Dataset, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(10))

    def sometimes(*arguments: object) -> object:
        result = evaluate(*arguments)  # type: ignore[arg-type]
        if next(calls) == 1:
            object.__setattr__(result, "loss", math.nan)
        return result

    monkeypatch.setattr("minigpt_cli.training.trainer.evaluate", sometimes)
    trainer = new_trainer(small_config(), dataset, run)
    watcher = Watcher()
    assert trainer.fit(watcher).finished
    assert trainer.state.skipped == [2 * EVAL_INTERVAL]
    assert watcher.notes[0].startswith("The validation loss is nan at step 10: rewound to step 5")


def test_run_stops_after_three_rewinds_and_says_what_it_saw(
    dataset: Dataset, run: RunFolder
) -> None:
    bad = {BAD, BAD + 1, BAD + 2, BAD + 3}
    trainer = poisoned(new_trainer(small_config(), dataset, run), bad, to_nan)
    watcher = Watcher()
    with pytest.raises(TrainingError) as caught:
        trainer.fit(watcher)
    message = str(caught.value)
    assert len(watcher.notes) == MAX_REWINDS == 3
    assert f"the loss is nan at step {BAD + 3} " in message
    assert "learning rate 0.02" in message
    assert "after 3 rewinds" in message
    assert "smaller optimizer.learning_rate" in message
    assert "optimizer.learning_rate" in caught.value.settings
    assert f"minigpt inspect batch {BAD + 3} {run.path}" in message
    norms = [row["grad_norm"] for row in rows(run) if row["type"] == "step"]
    assert f"{norms[-1]:.3g}" in message
    assert resumed(small_config(), dataset, run).state.step == 2 * EVAL_INTERVAL
    for row in rows(run):
        assert all(math.isfinite(v) for v in row.values() if isinstance(v, float))


def test_run_that_may_not_go_back_stops_at_once(dataset: Dataset, run: RunFolder) -> None:
    config = small_config("train.on_nonfinite=stop")
    trainer = poisoned(new_trainer(config, dataset, run), {BAD}, to_nan)
    watcher = Watcher()
    with pytest.raises(TrainingError, match=f"the loss is nan at step {BAD} "):
        trainer.fit(watcher)
    assert watcher.notes == []


def test_step_that_stays_bad_without_its_batch_is_not_retried(
    dataset: Dataset, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bad_from_ten(model: Any, *rest: Any) -> Any:
        result = evaluate(model, *rest)
        if trainer.state.step >= 2 * EVAL_INTERVAL:
            object.__setattr__(result, "loss", math.nan)
        return result

    monkeypatch.setattr("minigpt_cli.training.trainer.evaluate", bad_from_ten)
    trainer = new_trainer(small_config(), dataset, run)
    watcher = Watcher()
    with pytest.raises(TrainingError, match=r"validation loss is nan at step 10 .*after 1 rewind;"):
        trainer.fit(watcher)
    assert len(watcher.notes) == 1


def test_first_step_may_be_skipped_and_evaluated(dataset: Dataset, run: RunFolder) -> None:
    trainer = poisoned(
        new_trainer(small_config("train.eval_interval=1"), dataset, run), {1}, to_nan
    )
    watcher = Watcher()
    assert trainer.fit(watcher).finished
    assert watcher.evaluations[0].train_loss is None


def test_impossible_rewind_is_reported_with_its_cause(dataset: Dataset, run: RunFolder) -> None:
    trainer = poisoned(new_trainer(small_config(), dataset, run), {BAD}, to_nan)

    def delete(step: int) -> None:
        if step == BAD - 1:
            shutil.rmtree(run.path)

    with pytest.raises(TrainingError, match=f"the loss is nan at step {BAD} .*; cannot rewind: .*"):
        trainer.fit(Watcher(delete))


def test_dry_run_meets_bad_numbers_with_one_line(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = poisoned(new_trainer(small_config(), dataset), {1}, to_nan)
    with pytest.raises(TrainingError, match="the loss is nan at step 1; try a smaller"):
        estimate._seconds_of_step(trainer.learner, 0)


def test_rows_that_wait_for_the_disk_do_not_outlive_a_rewind(
    dataset: Dataset, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = poisoned(
        new_trainer(small_config("train.log_interval=1"), dataset, run), {BAD}, to_nan
    )
    real, full = RunFolder.append_metrics, [False]

    def append(folder: RunFolder, rows: list[Row]) -> None:
        if full[0]:
            raise CheckpointError("no room")
        real(folder, rows)

    def fill(step: int) -> None:
        full[0] = step == EVAL_INTERVAL + 1  # until the next row, which is of a step undone

    monkeypatch.setattr(RunFolder, "append_metrics", append)
    assert trainer.fit(Watcher(fill)).finished
    steps = [row["step"] for row in rows(run) if row["type"] == "step"]
    assert steps == [step for step in range(1, MAX_ITERS + 1) if step != BAD]


def test_crash_after_a_rewind_still_skips_the_batch(dataset: Dataset, run: RunFolder) -> None:
    trainer = poisoned(new_trainer(small_config(), dataset, run), {BAD}, to_nan)

    def die(step: int) -> None:
        if trainer.state.skipped:
            raise Crash

    with pytest.raises(Crash):
        trainer.fit(Watcher(die))
    again = resumed(small_config(), dataset, run)
    assert again.state.skipped == [BAD]
    watcher = Watcher()
    assert poisoned(again, {BAD}, to_nan).fit(watcher).finished
    assert watcher.notes == []


def test_spike_is_noted_with_its_z_score(dataset: Dataset, run: RunFolder) -> None:
    config = small_config("train.max_iters=40", "train.eval_interval=40")
    trainer = poisoned(new_trainer(config, dataset, run), {30}, lambda loss: loss + 100.0)
    watcher = Watcher()
    trainer.fit(watcher)
    (found,) = [row for row in rows(run) if row["type"] == "spike"]
    losses = [report.loss for report in watcher.steps][:29]
    deviation = torch.tensor(losses, dtype=torch.float64).std(correction=0).item()
    assert found["step"] == 30
    assert found["z_score"] == pytest.approx((found["loss"] - sum(losses) / 29) / deviation)


def test_spike_needs_enough_losses_that_differ() -> None:
    assert spike_z_score(9.0, [1.0] * 19) is None
    assert spike_z_score(9.0, [1.0] * 30) is None
    assert spike_z_score(8.0, [1.0, 3.0] * 10) is None
    assert spike_z_score(9.0, [1.0, 3.0] * 10) == 7.0


def test_rewind_is_a_line_of_the_metrics(dataset: Dataset, run: RunFolder) -> None:
    poisoned(new_trainer(small_config(), dataset, run), {BAD}, to_nan).fit(Watcher())
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    (told,) = [row for row in lines if row["type"] == "rewind"]
    assert told == {
        "type": "rewind", "step": EVAL_INTERVAL, "skipped": BAD,
        "reason": f"the loss is nan at step {BAD}",
    }  # fmt: skip
