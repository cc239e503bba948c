"""A state that was changed, by accident or on purpose, is refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt_cli.data.dataset import Dataset
from minigpt_cli.errors import CheckpointError
from minigpt_cli.runs.checkpoint import read_tensors, write_tensors
from minigpt_cli.runs.folder import RunFolder
from minigpt_cli.training.state import saved_run
from minigpt_cli.training.trainer import Trainer
from tests.helpers.tiny_checkpoint import parts, signed
from tests.helpers.training import new_trainer, small_config, train_until

pytestmark = pytest.mark.usefixtures("no_measuring")


@pytest.fixture
def stopped(dataset: Dataset, run: RunFolder) -> RunFolder:
    """A run that was stopped at step 6."""
    train_until(6, "asked", small_config(), dataset, run)
    return run


def refusal(run: RunFolder, dataset: Dataset, trainer: Trainer | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        (trainer or new_trainer(small_config(), dataset, run)).restore()
    assert str(caught.value).startswith(str(run.state))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"step": -1}, {"step": "6"}, {"step": 6.0}, {"step": True}, {"step": 2**40},
        {"elapsed": -1.0}, {"elapsed": 1e300}, {"step_seconds": None},
        {"best_val_loss": -1.0}, {"best_val_loss": "low"}, {"best_step": -3},
        {"recent_losses": [-1.0]}, {"recent_losses": "1"}, {"recent_losses": [1e300]},
        {"skipped": [1, 2, 3, 4]}, {"skipped": [-1]}, {"skipped": 3}, {"more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_state_is_refused(
    stopped: RunFolder, dataset: Dataset, change: dict[str, Any]
) -> None:
    tensors, metadata = read_tensors(stopped.state)
    forged = json.dumps({**json.loads(metadata["state"]), **change})
    write_tensors(stopped.state, tensors, {**metadata, "state": forged})
    assert "not the state of a run" in refusal(stopped, dataset)
    with pytest.raises(CheckpointError, match="not the state of a run"):
        saved_run(stopped.state)


@pytest.mark.parametrize(
    "text", ['{"step": 6', '{"step": NaN}', "[" * 10_000, '{"step":1,"step":2}']
)
def test_state_that_is_not_json_is_refused(stopped: RunFolder, dataset: Dataset, text: str) -> None:
    tensors, metadata = read_tensors(stopped.state)
    write_tensors(stopped.state, tensors, {**metadata, "state": text})
    assert "not the state of a run" in refusal(stopped, dataset)


def without_memory(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: t for name, t in tensors.items() if not name.startswith("optimizer.")}


def with_a_stranger(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**tensors, "somebody": torch.ones(1)}


def without_one(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    last = max(name for name in tensors if name.startswith("optimizer."))
    return {name: t for name, t in tensors.items() if name != last}


def without_numbers(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    last = max(name for name in tensors if name.startswith("optimizer."))
    return {**tensors, last: torch.full_like(tensors[last], torch.nan)}


def of_another_shape(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    last = max(name for name in tensors if name.startswith("optimizer."))
    return {**tensors, last: torch.ones(7)}


@pytest.mark.parametrize(
    "forge", [without_memory, with_a_stranger, without_one, without_numbers, of_another_shape]
)
def test_impossible_tensors_are_refused(
    stopped: RunFolder,
    dataset: Dataset,
    forge: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
) -> None:
    tensors, metadata = read_tensors(stopped.state)
    write_tensors(stopped.state, forge(tensors), metadata)
    assert "restore a backup, or train again" in refusal(stopped, dataset)


@pytest.mark.parametrize("every", [397, pytest.param(97, marks=pytest.mark.slow)])
def test_changed_byte_is_noticed(stopped: RunFolder, dataset: Dataset, every: int) -> None:
    whole = stopped.state.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    padding = len(whole[:end]) - len(whole[:end].rstrip(b" "))
    trainer = new_trainer(small_config(), dataset, stopped)
    for place in range(0, len(whole), every):
        if end - padding <= place < end:
            continue
        stopped.state.write_bytes(
            whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :]
        )
        assert refusal(stopped, dataset, trainer)


@pytest.mark.parametrize("every", [401, pytest.param(101, marks=pytest.mark.slow)])
def test_truncated_state_is_refused(stopped: RunFolder, dataset: Dataset, every: int) -> None:
    whole = stopped.state.read_bytes()
    trainer = new_trainer(small_config(), dataset, stopped)
    for length in range(0, len(whole), every):
        stopped.state.write_bytes(whole[:length])
        assert refusal(stopped, dataset, trainer)


def test_impossible_config_is_refused(stopped: RunFolder) -> None:
    header, data = parts(stopped.state.read_bytes())
    header["__metadata__"]["config"] = '{"model": {"n_layer": -1}}'
    Path(stopped.state).write_bytes(signed(header, data))
    with pytest.raises(CheckpointError, match="not the state of a run"):
        saved_run(stopped.state)


def test_nested_line_of_the_metrics_is_dropped(stopped: RunFolder) -> None:
    before = stopped.metrics.read_text()
    with stopped.metrics.open("a") as file:
        file.write('{"step": ' + "[" * 100_000 + "\n")
        file.write('{"type": "step", "step": 6}')  # and a line that a crash cut short
    stopped.cut_metrics(6)
    assert stopped.metrics.read_text() == before
