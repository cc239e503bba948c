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
    "random": [*MUON, "data.sampling=random"],
}
"""With the same passes: what each process computes is what one computes, one after the other."""


def tensors(run: Path) -> dict[str, Tensor]:
    return read_tensors(run / "state.safetensors")[0]


def losses(run: Path) -> list[float]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row.get("val_loss", row.get("loss")) for row in found if "step" in row]


def assert_same(one: Path, other: Path) -> None:
    """Equal in every weight, every number of the optimizer and every reported loss."""
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert rows(RunFolder(one)) == rows(RunFolder(other))
    best = [load_checkpoint(run / "checkpoint.safetensors").model.state_dict() for run in (one, other)]
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
def test_two_processes_are_one(tmp_path: Path, dataset: Dataset, alone: Any) -> None:
    names = {name: tmp_path / f"two {name}" for name in EXACT}
    nan = {"nan_at": 7 * 8 + 6}  # in the part of rank 1, in step 8
    train_on(2, tmp_path, dataset, [
        *(job(names[name], settings) for name, settings in EXACT.items()),
        job(tmp_path / "two nan", ADAMW, **nan),
        job(tmp_path / "two unequal", UNEQUAL),
        job(tmp_path / "moved", MUON, until=4),
    ])  # fmt: skip
    for name, settings in EXACT.items():
        assert_same(alone(name, settings), names[name])
    assert_same(alone("nan", ADAMW, **nan), tmp_path / "two nan")
    assert '"rewind"' in (tmp_path / "two nan" / "metrics.jsonl").read_text()
    assert losses(tmp_path / "two unequal") == pytest.approx(
        losses(alone("unequal", UNEQUAL)), abs=1e-5
    )


FSDP = "distributed.strategy=fsdp"


@pytest.mark.usefixtures("no_measuring")
def test_sharded_weights_are_trained_like_whole_ones(
    tmp_path: Path, dataset: Dataset, alone: Any
) -> None:
    train_on(2, tmp_path, dataset, [
        job(tmp_path / "sharded adamw", [*ADAMW, FSDP]),
        job(tmp_path / "sharded muon", [*MUON, FSDP]),
        job(tmp_path / "sharded rest", ["model.family=classic", "model.tie_embeddings=true", FSDP]),
        job(tmp_path / "sharded bf16", [*MUON, "train.precision=bf16", FSDP]),
        job(tmp_path / "sharded unequal", [*UNEQUAL, FSDP]),
    ])  # fmt: skip
    for name, settings in {
        "adamw": ADAMW, "muon": MUON, "rest": EXACT["dropout, clipping, classic"],
        "bf16": EXACT["bf16"], "unequal": UNEQUAL}.items():
        one, other = alone(name, settings), tmp_path / f"sharded {name}"
        print(name, max(abs(a-b) for a,b in zip(losses(one), losses(other), strict=True)),
          max((a-b).abs().max().item() for a,b in zip(tensors(one).values(), tensors(other).values())))
    assert 0
