"""A moving average of the weights, which is a better model than they are while the rate is high."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor

from minigpt_cli.private_torch import lerp_each_
from minigpt_cli.training.optimizers.updater import HERE, Placement, Updater


class WeightAverage(Updater):
    """An exponential moving average of the weights (Polyak & Juditsky 1992).

    Steps scatter the weights about a valley; their mean lies deeper in it. So a run that is looked
    at or stopped early has nearly the model that letting the learning rate fall would have given.

    Args:
        parameters: those that are trained.
        decay: share of the past that each step keeps, and less of it in the first ones.
        placement: where the weights are.
    """

    state_has_shape: ClassVar = {"average": True}

    def __init__(
        self, parameters: Sequence[Tensor], decay: float, placement: Placement = HERE
    ) -> None:
        super().__init__([{"params": list(parameters)}])
        self._decay, self._placement = decay, placement

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Adds the weights as a step left them; `step` is how many came before it."""
        # The first weights are far from good ones: the average begins short.
        decay = min(self._decay, (1 + step) / (10 + step))
        parameters = self.param_groups[0]["params"]
        for p in parameters:
            if not self.state[p]:
                self.state[p]["average"] = p.detach().clone()
        local = self._placement.local
        averages = [local(self.state[p]["average"]) for p in parameters]
        lerp_each_(averages, [local(p) for p in parameters], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Swaps the weights and the average inside this context only."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for p, state in self.state.items():
            weight, average = (self._placement.local(each) for each in (p, state["average"]))
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)
        self._placement.weights_changed()
