"""The last model of a run can be used, not only its best."""

from pathlib import Path

import pytest
import torch

from minigpt_cli.cli.loading import load
from minigpt_cli.data.dataset import Dataset
from minigpt_cli.errors import CheckpointError
from minigpt_cli.runs.folder import RunFolder
from tests.helpers.training import small_config, train

pytestmark = pytest.mark.usefixtures("no_measuring")


@pytest.mark.parametrize("ema_decay", [0.0, 0.8])
def test_state_is_loaded_as_the_last_model(
    dataset: Dataset, run: RunFolder, ema_decay: float
) -> None:
    config = small_config(
        f"optimizer.ema_decay={ema_decay}",
        "optimizer.learning_rate=9.0", "train.eval_interval=1", "optimizer.adamw_learning_rate=5.0",
        "optimizer.schedule=constant", "train.max_iters=13",
    )  # fmt: skip
    trainer = train(config, dataset, run)
    last, best = load(run.state).checkpoint, load(run.path).checkpoint
    assert trainer.state.best_step < last.metadata.step == trainer.state.step
    assert best.metadata.step == trainer.state.best_step
    assert last.metadata.val_loss is None
    with trainer.learner.evaluated_model() as model:
        for name, weight in model.state_dict().items():
            assert torch.equal(last.model.state_dict()[name], weight)
    assert last.tokenizer.to_json() == best.tokenizer.to_json()


def test_state_of_another_run_is_refused(dataset: Dataset, run: RunFolder, tmp_path: Path) -> None:
    train(small_config(), dataset, run)
    state = run.state.read_bytes().replace(dataset.metadata.fingerprint.encode(), b"0" * 16)
    run.state.write_bytes(state)
    with pytest.raises(CheckpointError, match=r"state\.safetensors: damaged"):
        load(run.state)
