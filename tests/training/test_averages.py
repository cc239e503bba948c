"""The moving average of the weights: what it is, and that it stands in for them where it should."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from minigpt_cli.data.dataset import Dataset
from minigpt_cli.evaluation import evaluate
from minigpt_cli.generation.text import ModelAndTokenizer
from minigpt_cli.runs.checkpoint import load_checkpoint
from minigpt_cli.runs.folder import RunFolder
from minigpt_cli.training import trainer as trainer_module
from minigpt_cli.training.optimizers.averages import WeightAverage
from tests.helpers.training import Watcher, new_trainer, small_config, train

pytestmark = pytest.mark.usefixtures("no_measuring")


def test_the_average_forgets_the_past_at_its_rate_but_the_first_weights_sooner() -> None:
    weight = torch.randn(3, 2)
    average = WeightAverage([weight], decay=0.5)
    expected = None
    for step in range(20):
        weight += torch.randn(3, 2)
        average.update(step)
        kept = min(0.5, (1 + step) / (10 + step))
        expected = weight if expected is None else kept * expected + (1 - kept) * weight
        expected = expected.clone()
        torch.testing.assert_close(average.state[weight]["average"], expected)
    assert kept == 0.5


def test_applying_it_for_a_while_changes_no_bit() -> None:
    weights = [torch.randn(4, 3), torch.randn(5)]
    average = WeightAverage(weights, decay=0.9)
    average.update(0)
    for weight in weights:
        weight.mul_(3)
    average.update(1)
    before = [weight.clone() for weight in weights]
    means = [state["average"].clone() for state in average.state.values()]
    with average.applied():
        assert all(map(torch.equal, weights, means))
    assert all(map(torch.equal, weights, before))
    with pytest.raises(ZeroDivisionError), average.applied():
        raise ZeroDivisionError
    assert all(map(torch.equal, weights, before))
    after = [state["average"] for state in average.state.values()]
    assert all(map(torch.equal, after, means))


def test_training_is_the_same_with_an_average_or_without(dataset: Dataset) -> None:
    found = []
    for decay in (0.0, 0.9):
        trainer = new_trainer(small_config(f"optimizer.ema_decay={decay}"), dataset)
        watcher = Watcher()
        trainer.fit(watcher)
        found.append((trainer.learner.model.state_dict(), [row.loss for row in watcher.steps]))
    (plain, losses), (averaged, same_losses) = found
    assert losses == same_losses
    assert all(torch.equal(plain[name], averaged[name]) for name in plain)


def test_the_saved_model_is_the_average_and_what_was_evaluated(
    dataset: Dataset, run: RunFolder
) -> None:
    config = small_config("optimizer.ema_decay=0.9", "optimizer.schedule=constant")
    trainer = train(config, dataset, run)
    assert trainer.state.best_step == trainer.state.step
    saved = load_checkpoint(run.checkpoint)
    state = trainer.learner.optimizer.state_tensors()
    for name, weight in saved.model.named_parameters():
        assert torch.equal(weight, state[f"{name}.average"])
        assert not torch.equal(weight, trainer.learner.model.get_parameter(name))
    result = evaluate(saved.model, saved.tokenizer, dataset.tokens("val"))
    assert result.loss == pytest.approx(saved.metadata.val_loss, rel=1e-6)


def test_a_sample_is_written_by_the_average(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = []

    def watched(writer: ModelAndTokenizer, *_: Any) -> Iterator[str]:
        heads.append(writer.model.head.weight.detach().clone())
        return iter(["text"])

    monkeypatch.setattr(trainer_module, "generate", watched)
    config = small_config("optimizer.ema_decay=0.9", "train.sample_tokens=4", "train.max_iters=5")
    trainer = train(config, dataset)
    (head,) = heads
    assert torch.equal(head, trainer.learner.optimizer.state_tensors()["head.weight.average"])
