"""What all of them have in common: groups of parameters, state for each, and where they are."""

from collections import defaultdict
from typing import Any, ClassVar

from torch import Tensor

from minigpt_cli.training.optimizers.orthogonalization import newton_schulz


class Placement:
    """Where the tensors of a model are: here, whole and in one process.

    A strategy of several processes overrides what is different for it.
    """

    def local(self, tensor: Tensor) -> Tensor:
        """The part of a parameter, a gradient or a state that this process updates."""
        return tensor

    def first_row(self, parameter: Tensor) -> int:  # noqa: ARG002 - for those that share it
        """The row of the whole parameter with which that part begins."""
        return 0

    def whole(self, update: Tensor, parameter: Tensor) -> Tensor:  # noqa: ARG002
        """A matrix in one piece, given this process's part of it.

        Args:
            update: this process's rows, in bf16.
            parameter: whose update it is.

        Returns:
            The shape of the parameter, in bf16.
        """
        return update

    def orthogonalized(self, matrices: Tensor) -> Tensor:
        """As from `newton_schulz`, of (N, rows, columns)."""
        return newton_schulz(matrices)

    def assign(self, like: Tensor, whole: Tensor) -> Tensor:
        """A tensor placed as `like` is, from the same one in one piece."""
        return whole.to(like.device)

    def weights_changed(self) -> None:
        """To be called after weights changed other than by a step."""


HERE = Placement()


class Updater:
    """Parameters in groups, and the state kept for each.

    Not a `torch.optim.Optimizer`: creating the first one imports PyTorch's compiler, which takes a
    second.
    """

    state_has_shape: ClassVar[dict[str, bool]]
    """For each name of state: whether it has its parameter's shape, or is a single number."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self.param_groups = groups
        self.state: dict[Tensor, dict[str, Tensor]] = defaultdict(dict)
