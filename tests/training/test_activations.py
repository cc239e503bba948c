"""Activation checkpointing changes the memory of a step, not its numbers."""

import pytest
import torch

from minigpt_cli.data.dataset import Dataset
from minigpt_cli.training.learner import Learner
from tests.helpers.training import small_config


@pytest.mark.parametrize("family", ["classic", "modern"])
def test_steps_are_the_same(dataset: Dataset, family: str) -> None:
    results, saved = [], []
    for setting in ("false", "true"):
        config = small_config(f"model.family={family}", f"train.activation_checkpointing={setting}")
        learner, kept = Learner(config, dataset), [0]

        def count(tensor: torch.Tensor, kept: list[int] = kept) -> torch.Tensor:
            kept[0] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            losses = [learner.take_step(step)[0] for step in range(2)]
        results.append([*losses, *learner.model.state_dict().values()])
        saved.append(kept[0])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert saved[1] < saved[0] / 2
