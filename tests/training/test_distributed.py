"""Several processes train one model: the same run, however many they are."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from minigpt_cli.data.dataset import Dataset
from minigpt_cli.runs.checkpoint import load_checkpoint, read_tensors
from minigpt_cli.runs.folder import RunFolder
from tests.helpers.ranks import train_job, train_on
from tests.helpers.training import rows

PLAIN = ["model.dropout=0", "train.grad_accum_steps=2", "optimizer.grad_clip=0"]
MUON = [*PLAIN, "model.n_kv_head=1"]
ADAMW = [*PLAIN, "optimizer.name=adamw", "optimizer.learning_rate=0.01"]
UNEQUAL = [*ADAMW, "train.batch_size=3", "train.grad_accum_steps=1"]
FOUR = ["train.batch_size=2", "train.grad_accum_steps=4"]
EXACT: dict[str, list[str]] = {
    "adamw": ADAMW,
    "muon": MUON,
    "dropout, clipping, classic": ["model.family=classic", "model.tie_embeddings=true"],
    "bf16": [*MUON, "train.precision=bf16"],
    "adapters": [*ADAMW, "lora.rank=2"],
}
"""With the same passes: what each process computes is what one computes, one after the other."""


FSDP = "distributed.strategy=fsdp"
SHARDED = {
    "adamw": (0.0, 2e-7), "bf16": (0.0, 2e-7),
    "dropout, clipping, classic": (1e-3, 1e-2),
}  # fmt: skip
"""How far training losses and tensors may be from those of whole weights. AdamW's kernel may round
a number otherwise, by its last digit, where it is updated in another place of a shorter tensor.
With clipping the norm is summed in another order, which Muon's bf16 makes larger."""


def tensors(run: Path) -> dict[str, Tensor]:
    return read_tensors(run / "state.safetensors")[0]


def losses(run: Path) -> list[float]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kinds = {"step": "loss", "evaluation": "val_loss"}
    return [row[kinds[row["type"]]] for row in found if row["type"] in kinds]


def steps(run: Path) -> list[float]:
    """The losses of training alone."""
    return [row["loss"] for row in rows(RunFolder(run)) if row["type"] == "step"]


def saved_step(run: Path) -> int:
    step: int = json.loads(read_tensors(run / "state.safetensors")[1]["state"])["step"]
    return step


def assert_close(one: Path, other: Path, tolerance: float) -> None:
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=tolerance, msg=name)


def assert_same(one: Path, other: Path) -> None:
    """Equal in every weight, every number of the optimizer and every reported loss."""
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert rows(RunFolder(one)) == rows(RunFolder(other))
    best = [
        load_checkpoint(run / "checkpoint.safetensors").model.state_dict() for run in (one, other)
    ]
    assert all(torch.equal(best[0][name], best[1][name]) for name in best[0])


@pytest.fixture
def alone(tmp_path: Path, dataset: Dataset) -> Any:
    def train(name: str, settings: list[str], **options: Any) -> Path:
        train_job(dataset, tmp_path / name, settings, **options)
        return tmp_path / name

    return train


def job(folder: Path, settings: list[str], **options: Any) -> dict[str, Any]:
    return {"folder": str(folder), "settings": settings, **options}


@pytest.mark.usefixtures("no_measuring")
def test_two_processes_train_as_one(tmp_path: Path, dataset: Dataset, alone: Any) -> None:
    def run(name: str) -> Path:
        return tmp_path / f"2 {name}"

    nan = {"nan_at": 7 * 8 + 6}  # in the part of rank 1, in step 8
    stops = {"until": 4}
    train_on(2, tmp_path, dataset, [
        *(job(run(name), settings) for name, settings in EXACT.items()),
        job(run("nan"), ADAMW, **nan),
        job(run("unequal"), UNEQUAL),
        job(run("moved"), ADAMW, **stops),
        job(run("stopped"), MUON, **stops),
        job(run("stopped"), MUON),
    ])  # fmt: skip
    for name, settings in EXACT.items():
        assert_same(alone(name, settings), run(name))
    assert_same(alone("nan", ADAMW, **nan), run("nan"))
    assert '"rewind"' in (run("nan") / "metrics.jsonl").read_text()
    unequal = losses(alone("unequal", UNEQUAL))
    assert losses(run("unequal")) == pytest.approx(unequal, rel=0, abs=1e-5)
    assert_same(run("stopped"), run("muon"))
    # Begun by two, ended by one.
    assert saved_step(run("moved")) == 4
    assert_same(train_job(dataset, run("moved"), ADAMW).folder.path, run("adamw"))


@pytest.mark.slow
@pytest.mark.usefixtures("no_measuring")
def test_two_processes_with_shards_train_as_one(
    tmp_path: Path, dataset: Dataset, alone: Any
) -> None:
    def run(name: str) -> Path:
        return tmp_path / f"2 {name}"

    train_on(2, tmp_path, dataset, [
        *(job(run(name), [*EXACT[name], FSDP]) for name in SHARDED),
        job(run("unequal"), [*UNEQUAL, FSDP]),
        job(run("stopped"), [*EXACT["bf16"], FSDP], until=4),
        job(run("stopped"), [*EXACT["bf16"], FSDP]),
    ])  # fmt: skip
    for name, (of_losses, of_tensors) in SHARDED.items():
        whole = alone(name, EXACT[name])
        assert steps(run(name)) == pytest.approx(steps(whole), rel=0, abs=of_losses)
        assert losses(run(name)) == pytest.approx(losses(whole), abs=1e-3)
        assert_close(run(name), whole, of_tensors)
    unequal = losses(alone("unequal", UNEQUAL))
    assert losses(run("unequal")) == pytest.approx(unequal, rel=0, abs=1e-5)
    assert_same(run("stopped"), run("bf16"))


@pytest.mark.usefixtures("no_measuring")
@pytest.mark.slow
def test_four_processes_train_as_one(tmp_path: Path, dataset: Dataset, alone: Any) -> None:
    settings = {"adamw": [*ADAMW, *FOUR], "muon": [*MUON, *FOUR]}
    train_job(dataset, tmp_path / "4 continued", settings["adamw"], until=6)
    train_on(4, tmp_path, dataset, [
        *(job(tmp_path / f"4 {name}", values) for name, values in settings.items()),
        job(tmp_path / "4 continued", settings["adamw"]),
    ])  # fmt: skip
    for name, values in settings.items():
        assert_same(alone(name, values), tmp_path / f"4 {name}")
    assert_same(tmp_path / "adamw", tmp_path / "4 continued")


@pytest.mark.slow
@pytest.mark.usefixtures("no_measuring")
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_run_moves_from_two_processes_to_one_and_to_three(
    tmp_path: Path, dataset: Dataset, alone: Any, strategy: str
) -> None:
    settings = [*ADAMW, f"distributed.strategy={strategy}"]
    run = tmp_path / "moved"
    train_on(2, tmp_path, dataset, [job(run, settings, until=4)])
    assert saved_step(run) == 4
    train_job(dataset, run, settings, until=8)
    assert saved_step(run) == 8
    train_on(3, tmp_path, dataset, [job(run, settings)])
    assert losses(run) == pytest.approx(losses(alone("whole", settings)), abs=1e-5)
    assert_close(run, tmp_path / "whole", 1e-5)
