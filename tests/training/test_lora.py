"""Adapters: what is trained, what is saved, and what they may not change."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt_cli.config.schema import LoraConfig, RunConfig
from minigpt_cli.data.dataset import Dataset
from minigpt_cli.errors import ConfigError
from minigpt_cli.evaluation import evaluate
from minigpt_cli.inspection.gradients import own_gradients
from minigpt_cli.runs.checkpoint import load_checkpoint, read_tensors
from minigpt_cli.runs.folder import RunFolder
from minigpt_cli.training.lora import (
    adapted_layers,
    adapter_tensors,
    add_adapters,
    draw_adapters,
    merged,
)
from minigpt_cli.training.planning.fitting import memory_here
from minigpt_cli.training.state import load_last
from minigpt_cli.training.trainer import Trainer
from tests.helpers.exports import CONFIGS, random_checkpoint, tokenizer_of
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
IDS = torch.tensor([[1, 2, 3, 4, 5]])
ALL = LoraConfig().targets


def lora_config(*overrides: str) -> RunConfig:
    settings = ("optimizer.name=adamw", "optimizer.learning_rate=0.05", "lora.rank=2", *overrides)
    return small_config(*settings)


def begin(config: RunConfig, dataset: Dataset, run: RunFolder | None = None) -> Trainer:
    """A trainer whose base is not the identity, unlike a new model."""
    trainer = new_trainer(config, dataset, run)
    base = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in trainer.learner.model.named_parameters():
            if not name.endswith(("lora_a", "lora_b")) and weight.dim() == 2:
                weight.normal_(std=0.3, generator=base)
    return trainer


@pytest.fixture
def finished(dataset: Dataset, run: RunFolder) -> Trainer:
    trainer = begin(lora_config(), dataset, run)
    trainer.fit(Watcher())
    return trainer


def is_adapter(name: str) -> bool:
    return name.endswith((".lora_a", ".lora_b"))


@pytest.mark.parametrize("name", ["modern-gqa-tied", "classic"])
@pytest.mark.parametrize("targets", [ALL, ("q", "v"), ("up",)])
@torch.no_grad()
def test_adapters_begin_as_the_model_and_compute_the_sum_of_their_definition(
    name: str, targets: Any
) -> None:
    model = random_checkpoint(CONFIGS[name], tokenizer_of("byte")).model
    before = model(IDS)
    add_adapters(model, LoraConfig(rank=3, alpha=7.0, targets=targets))
    draw_adapters(model)
    assert model(IDS).equal(before)
    dense = random_checkpoint(CONFIGS[name], tokenizer_of("byte")).model
    for layer_name, layer in adapted_layers(model).items():
        layer.lora_b.normal_(std=0.1)
        parts = ("q", "k", "v") if layer_name.endswith("qkv") else ("gate", "up")
        if len(layer.rows) == 1:
            parts = (layer_name.rpartition(".")[2],)  # type: ignore[assignment]
        weight = dict(dense.named_parameters())[f"{layer_name}.weight"]
        row, n, used = 0, 0, 0
        for part, rows in zip(parts, layer.rows, strict=True):
            if part in targets:
                a, b = layer.lora_a[3 * n : 3 * n + 3], layer.lora_b[used : used + rows]
                weight[row : row + rows] += 7.0 / 3 * torch.einsum("or,ri->oi", b, a)
                n, used = n + 1, used + rows
            row += rows
        assert used == len(layer.lora_b)
    assert (model(IDS) - before).abs().max() > 0.01
    assert (model(IDS) - dense(IDS)).abs().max() < 1e-5
    with merged(model) as plain:
        assert (plain(IDS) - dense(IDS)).abs().max() < 1e-5
        assert not adapted_layers(plain)


def test_only_adapters_are_trained(dataset: Dataset) -> None:
    trainer = begin(lora_config(), dataset)
    model, optimizer = trainer.learner.model, trainer.learner.optimizer
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    trainer.learner.take_step(0)
    trainer.learner.take_step(1)
    for name, weight in model.state_dict().items():
        assert weight.equal(before[name]) != is_adapter(name), name
    held = {name.rpartition(".")[0] for name in optimizer.state_tensors()}
    assert held == {name for name in before if is_adapter(name)}


def test_the_backward_pass_leaves_no_gradient_of_the_base(dataset: Dataset) -> None:
    learner = begin(lora_config(), dataset).learner
    learner.model(*learner.batches.batch(0)).backward()
    for name, weight in learner.model.named_parameters():
        assert (weight.grad is not None) == is_adapter(name)


@pytest.mark.parametrize("stop", [4, 8])
def test_a_resumed_run_equals_an_uninterrupted_one(
    dataset: Dataset, run: RunFolder, stop: int
) -> None:
    config = lora_config("train.save_every_seconds=1e-9", "train.sample_tokens=8")
    whole = train(config, dataset)
    assert train_until(stop, "crash", config, dataset, run) is None
    again = resumed(config, dataset, run)
    assert again.state.step == stop - 1
    again.fit(Watcher())
    assert differences(again, whole) == []


def test_the_checkpoint_is_the_model_with_its_adapters_added(
    dataset: Dataset, finished: Trainer
) -> None:
    config, saved = finished.config, load_checkpoint(finished.folder.checkpoint)
    assert (saved.metadata.lora, saved.metadata.config) == (config.lora, config)
    result = evaluate(saved.model, saved.tokenizer, dataset.tokens("val"))
    assert result.loss == pytest.approx(saved.metadata.val_loss, rel=1e-6)
    assert all(weight.requires_grad for weight in saved.model.parameters())


def test_the_last_model_is_that_of_the_state_with_its_adapters_added(
    dataset: Dataset, run: RunFolder
) -> None:
    trainer = begin(lora_config(), dataset, run)
    watcher = Watcher(lambda step: setattr(trainer, "stop_requested", step == 7))
    assert trainer.fit(watcher).step == 7
    last = load_last(run.state)
    with torch.no_grad(), trainer.learner.evaluated_model() as model:
        assert last.model(IDS).equal(model.eval()(IDS))
    with trainer.learner.optimizer.averaged():
        for name, tensor in adapter_tensors(trainer.learner.model).items():
            assert last.adapters[name].equal(tensor)
    assert all(weight.requires_grad for weight in last.model.parameters())
    stored, _ = read_tensors(run.state)
    assert {f"model.{name}" for name in last.adapters} <= stored.keys()


def test_merging_for_a_while_changes_no_bit(finished: Trainer) -> None:
    model = finished.learner.model
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    order, layers = [*before], adapted_layers(model)
    with pytest.raises(ZeroDivisionError), merged(model):
        raise ZeroDivisionError
    assert [*model.state_dict()] == order
    assert adapted_layers(model) == layers
    assert all(weight.equal(before[name]) for name, weight in model.state_dict().items())


def test_gradients_are_those_of_the_adapters(dataset: Dataset, run: RunFolder) -> None:
    trainer = begin(
        lora_config("model.dropout=0", "train.max_iters=5", "optimizer.ema_decay=0"), dataset, run
    )
    assert trainer.fit(Watcher()).best_step == 5
    found = own_gradients(load_checkpoint(run.checkpoint), dataset)
    learner = trainer.learner
    learner.model(*learner.batches.batch(10)).backward()
    theirs = {n: p.grad for n, p in learner.model.named_parameters() if p.grad is not None}
    assert {one.name for one in found.parameters} == theirs.keys()
    for one in found.parameters:
        assert one.gradient_norm == pytest.approx(theirs[one.name].norm().item(), rel=1e-3)


def test_frozen_weights_have_no_gradient(dataset: Dataset, run: RunFolder) -> None:
    config = small_config('train.freeze=["blocks.0.*"]', "train.max_iters=5")
    new_trainer(config, dataset, run).fit(Watcher())
    found = own_gradients(load_checkpoint(run.checkpoint), dataset)
    for one in found.parameters:
        assert (one.state == "no gradient") == one.name.startswith("blocks.0.")


def test_a_frozen_layer_gets_no_adapter(dataset: Dataset) -> None:
    config = lora_config('train.freeze=["blocks.0.*", "*.down.*"]')
    model = new_trainer(config, dataset).learner.model
    names = {f"blocks.1.{layer}" for layer in ("attention.qkv", "attention.proj", "gate_up")}
    assert adapted_layers(model).keys() == names


def test_the_backward_pass_is_counted_as_what_it_is(dataset: Dataset) -> None:
    whole, adapters = (new_trainer(c, dataset).learner for c in (small_config(), lora_config()))
    assert adapters.flops_per_token * 3 == whole.flops_per_token * 2


@pytest.mark.parametrize("family", ["modern", "classic"])
def test_the_memory_expected_is_that_of_the_adapters(dataset: Dataset, family: str) -> None:
    config = lora_config(f"model.family={family}")
    learner = begin(config, dataset).learner
    learner.model(*learner.batches.batch(0)).backward()
    gradients = [p.grad for p in learner.model.parameters() if p.grad is not None]
    learner.optimizer.step()
    learner.optimizer.update_average(0)
    memory = memory_here(config, learner.model.vocab_size)
    assert memory.gradients == 4 * sum(gradient.numel() for gradient in gradients)
    assert memory.weights == 4 * sum(p.numel() for p in learner.model.parameters())
    state = learner.optimizer.state_tensors().values()
    assert memory.optimizer_state == 4 * sum(t.numel() for t in state if t.dim())
    assert memory.peak < memory_here(config.model_copy(update={"lora": None}), 65).peak


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["lora.rank=17"], r"lora.rank = 17: larger than the matrices .* 16 columns"),
        (['lora.targets=["gate"]', "model.family=classic"], r"no such matrix is left to adapt"),
        (['train.freeze=["*.weight"]'], r"no weight to train|no such matrix is left"),
    ],
)
def test_what_cannot_be_adapted_is_refused(
    dataset: Dataset, settings: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        new_trainer(lora_config(*settings), dataset)


@pytest.mark.parametrize("spoil", [lambda name: f"{name}x", lambda name: "blocks.9.down.lora_a"])
def test_adapters_that_do_not_fit_are_refused(
    dataset: Dataset, finished: Trainer, spoil: Callable[[str], str]
) -> None:
    from minigpt_cli.errors import CheckpointError
    from minigpt_cli.training.lora import separate

    saved = load_checkpoint(finished.folder.checkpoint)
    first, *others = saved.adapters
    wrong = {spoil(first): saved.adapters[first], **{n: saved.adapters[n] for n in others}}
    assert saved.metadata.lora is not None
    with pytest.raises(CheckpointError, match="does not fit the model"):
        separate(saved.model, saved.metadata.lora, wrong)


def test_a_file_of_adapters_without_their_settings_is_refused(
    finished: Trainer, tmp_path: Path
) -> None:
    from dataclasses import replace

    from minigpt_cli.errors import CheckpointError
    from minigpt_cli.runs.checkpoint import checkpoint_file

    saved = load_checkpoint(finished.folder.checkpoint)
    metadata = replace(saved.metadata, lora=None)
    checkpoint_file(tmp_path / "c", saved.model, metadata, saved.adapters).write()
    with pytest.raises(CheckpointError, match=r"lora_. is unexpected"):
        load_checkpoint(tmp_path / "c")
