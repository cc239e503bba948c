"""AdamW, for what Muon does not train, or for everything."""

from typing import Any, ClassVar

import torch

from minigpt_cli.private_torch import add_each_, fused_adamw_
from minigpt_cli.training.optimizers.updater import HERE, Placement, Updater


class AdamW(Updater):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), in PyTorch's fused kernel.

    Args:
        groups: each has `params`, `lr` and `weight_decay`.
        betas: shares of the past kept in the running means of gradients and their squares.
        placement: where the weights are.
    """

    state_has_shape: ClassVar = {"step": False, "exp_avg": True, "exp_avg_sq": True}

    def __init__(
        self,
        groups: list[dict[str, Any]],
        betas: tuple[float, float],
        placement: Placement = HERE,
    ) -> None:
        super().__init__(groups)
        self._betas, self._placement = betas, placement

    @torch.no_grad()
    def step(self) -> None:
        """Updates every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            for p in parameters:
                if not self.state[p]:
                    self.state[p] = {
                        "step": torch.zeros((), device=p.device),
                        "exp_avg": torch.zeros_like(p),
                        "exp_avg_sq": torch.zeros_like(p),
                    }
            if not parameters:
                continue
            states = [self.state[p] for p in parameters]
            steps = [state["step"] for state in states]
            add_each_(steps, 1)
            local = self._placement.local
            mine = [
                (local(p), local(p.grad), local(state["exp_avg"]), local(state["exp_avg_sq"]), step)
                for p, state, step in zip(parameters, states, steps, strict=True)
                if p.grad is not None and local(p).numel()
            ]
            if not mine:
                continue
            fused_adamw_(
                *map(list, zip(*mine, strict=True)),
                lr=group["lr"],
                betas=self._betas,
                weight_decay=group["weight_decay"],
            )
