"""Gradient norms, against autograd's own and the trainer's batch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt_cli.config.loading import load_run_config
from minigpt_cli.config.schema import ClassicConfig, ModernConfig, TrainConfig
from minigpt_cli.data.batches import BatchSampler
from minigpt_cli.data.dataset import Dataset
from minigpt_cli.data.workspace import Workspace
from minigpt_cli.inspection.gradients import measure, own_gradients
from minigpt_cli.model.gpt import GPT
from minigpt_cli.runs.checkpoint import load_checkpoint
from tests.helpers.dense_gpt import random_gpt

FILE = Path("runs/tiny/checkpoint.safetensors")
SIZES: dict[str, Any] = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 8}


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    windows = torch.randint(20, (3, 9), generator=torch.Generator().manual_seed(0))
    return windows[:, :-1], windows[:, 1:]


@pytest.fixture
def dataset(trained_home: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.chdir(trained_home)
    return Workspace(Path("data")).own_dataset(load_checkpoint(FILE).metadata)


def test_norms_match_the_backward_pass_and_change_nothing() -> None:
    model = random_gpt(ClassicConfig(**SIZES, dropout=0.5), 20).train()
    found = measure(model, *batch())
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    model.eval()
    loss = model(*batch())
    loss.backward()
    assert found.loss == pytest.approx(loss.item())
    assert [p.name for p in found.parameters] == [name for name, _ in model.named_parameters()]
    for one, weight in zip(found.parameters, model.parameters(), strict=True):
        assert weight.grad is not None
        norm, length = weight.grad.square().sum().sqrt().item(), weight.square().sum().sqrt().item()
        assert one.gradient_norm == pytest.approx(norm, rel=1e-4)
        assert one.weight_norm == pytest.approx(length, rel=1e-4)
        assert one.ratio == pytest.approx(norm / length, rel=1e-4)
        assert one.state == "fine"
    total = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)
    assert found.norm == pytest.approx(total.item(), rel=1e-4)


def test_the_batch_is_the_one_that_the_run_took_next(dataset: Dataset) -> None:
    trained = load_checkpoint(FILE)
    found = own_gradients(trained, dataset)
    run = load_run_config("runs/tiny/config.toml")
    sampler = BatchSampler(dataset.tokens("train"), 8, 32, run.train.seed, run.data.sampling)
    expected = measure(trained.model, *sampler.batch(20), 21, as_in_run=True)
    assert found == expected
    assert (found.step, found.windows, found.tokens) == (21, 8, 256)


def test_without_the_runs_settings_the_default_ones_are_used(dataset: Dataset) -> None:
    trained = load_checkpoint(FILE)
    older = replace(trained, metadata=replace(trained.metadata, optimizer=None, train=None))
    found = own_gradients(older, dataset)
    assert (found.as_in_run, found.windows) == (False, TrainConfig().batch_size)


def test_dead_frozen_and_exploding_parameters_are_marked() -> None:
    torch.manual_seed(0)
    model = GPT(ModernConfig(**SIZES), 20).initialize()  # its residual projections start at zero
    model.get_parameter("norm.weight").requires_grad_(False)
    with torch.no_grad():
        model.head.weight.mul_(1e-3)
        model.get_parameter("norm.weight").mul_(1e4)
    states = {one.name: one for one in measure(model, *batch()).parameters}
    assert states["norm.weight"].state == "no gradient"
    assert states["norm.weight"].gradient_norm is states["norm.weight"].ratio is None
    assert states["blocks.0.attention.qkv.weight"].state == "dead"
    assert states["blocks.0.attention.qkv.weight"].gradient_norm == 0
    assert states["head.weight"].state == "exploding"
    assert states["blocks.0.down.weight"].weight_norm == 0
    assert states["blocks.0.down.weight"].ratio is None


def test_non_finite_gradients_count_as_exploding() -> None:
    model = random_gpt(ModernConfig(**SIZES), 20)
    with torch.no_grad():
        model.head.weight[0, 0] = float("nan")
    assert {one.state for one in measure(model, *batch()).parameters} == {"exploding"}
