"""The text of a step is the text that the trainer read at that step."""

from pathlib import Path

import pytest
import torch

from minigpt_cli.data.dataset import Dataset
from minigpt_cli.errors import ConfigError
from minigpt_cli.inspection.batch import step_batch
from minigpt_cli.runs.folder import RunFolder
from minigpt_cli.training.state import saved_run
from tests.helpers.training import Watcher, new_trainer, small_config, train_until

pytestmark = pytest.mark.usefixtures("no_measuring")


@pytest.mark.parametrize("sampling", ["epochs", "random"])
def test_windows_match_what_the_model_was_trained_on(
    dataset: Dataset, run: RunFolder, sampling: str
) -> None:
    config = small_config(f"data.sampling={sampling}")  # two batches of four a step
    seen: list[str] = []
    trainer = new_trainer(config, dataset, run)
    forward = trainer.learner.model.forward

    def watch(idx: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
        if targets is not None and trainer.state.step == 6:
            for row, target in zip(idx, targets, strict=True):
                seen.append(dataset.tokenizer.decode([*row.tolist(), int(target[-1])]))
        return forward(idx, targets)

    trainer.learner.model.forward = watch  # type: ignore[method-assign, assignment]
    trainer.fit(Watcher())
    batch = step_batch(saved_run(run.state), dataset, 7)
    assert [window.text for window in batch.windows] == seen
    assert len(seen) == 8
    tokens = dataset.tokens("train")
    for window in batch.windows:
        assert dataset.tokenizer.decode(tokens[window.start : window.start + 9]) == window.text


def test_learning_rate_matches_the_metrics(dataset: Dataset, run: RunFolder) -> None:
    watcher = Watcher()
    new_trainer(small_config(), dataset, run).fit(watcher)
    for report in watcher.steps:
        batch = step_batch(saved_run(run.state), dataset, report.step)
        assert batch.learning_rate == report.learning_rate


def test_skipped_batch_is_marked(dataset: Dataset, run: RunFolder) -> None:
    trainer = new_trainer(small_config(), dataset, run)
    trainer.state.skipped = [4]
    trainer.fit(Watcher())
    saved = saved_run(run.state)
    assert [step_batch(saved, dataset, step).skipped for step in (3, 4)] == [False, True]


@pytest.mark.parametrize("step", [-1, 0, 13])
def test_step_that_the_run_does_not_have_is_refused(
    dataset: Dataset, run: RunFolder, step: int
) -> None:
    train_until(3, "asked", small_config(), dataset, run)
    with pytest.raises(ConfigError, match=f"step {step}: the run has steps 1 to 12"):
        step_batch(saved_run(run.state), dataset, step)


def test_state_file_alone_is_enough(dataset: Dataset, run: RunFolder) -> None:
    train_until(3, "asked", small_config(), dataset, run)
    (Path(run.path) / "config.toml").unlink()
    assert step_batch(saved_run(run.state), dataset, 1).windows
