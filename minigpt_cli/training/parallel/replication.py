"""The strategy `ddp`: every process has the whole model, and gradients are summed.

Gradients are summed by hooks over `torch.distributed` rather than by `DistributedDataParallel`,
which gives the same numbers: docs/architecture.md says why.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from minigpt_cli.model.gpt import GPT
from minigpt_cli.runs.checkpoint import PendingFile
from minigpt_cli.training.optimizers.orthogonalization import newton_schulz
from minigpt_cli.training.optimizers.updater import Placement
from minigpt_cli.training.parallel.distributed import ALONE, Group

_BUCKET_BYTES = 25 * 2**20
"""Gradients sent at once: long enough for the network's full rate, short enough to begin early."""


Description = list[tuple[str, str, list[int]]]
"""Names, dtypes and shapes of tensors, in the order in which they are sent."""


class Replicated(Placement):
    """The whole model in every process, or in the only one."""

    name = "ddp"
    in_lockstep = False
    """Whether every process must make the same number of forward passes."""

    def __init__(self, group: Group = ALONE) -> None:
        self.group = group
        self._sum: GradientSum | None = None

    def place(self, model: GPT, device: torch.device) -> GPT:
        """Moves a model to this process's device, ready to be trained."""
        model = model.to(device)
        if self.group.size > 1:
            self._sum = GradientSum([p for p in model.parameters() if p.requires_grad], self.group)
        return model

    def begin_backward(self, is_last: bool) -> None:
        """To be called before each backward pass of a step; `is_last` says it is the last one."""
        if is_last and self._sum is not None:
            self._sum.start()

    def finish_backward(self) -> None:
        """Completes the sums of the gradients."""
        if self._sum is not None:
            self._sum.finish()

    def norm(self, tensors: Sequence[Tensor]) -> Tensor:
        """The norm of all tensors together, as one number on the device."""
        return nn.utils.get_total_norm(tensors)

    def clip_(self, parameters: Sequence[Tensor], most: float, norm: Tensor) -> None:
        """Scales the gradients down to a norm of at most `most`."""
        nn.utils.clip_grads_with_norm_(parameters, most, norm)

    def gathered(self, file: PendingFile) -> PendingFile:
        """A file with whole tensors; only rank 0's may be written."""
        return file

    def kept(self, file: PendingFile) -> PendingFile:
        """The same, with tensors of its own, which training does not change."""
        return file.copied() if self.group.is_first else file

    def whole_model(self, model: GPT) -> GPT | None:
        """The model in one piece, for rank 0 to write with."""
        return model

    def received(
        self, tensors: dict[str, Tensor], description: Description
    ) -> Iterator[tuple[str, Tensor]]:
        """Rank 0's tensors in every process, one after another.

        Args:
            tensors: those to send; used on rank 0 alone.
            description: of them, in the order of sending, as from `described`.
        """
        for name, dtype, shape in description:
            if self.group.is_first:
                tensor = tensors[name]
            else:
                tensor = torch.empty(shape, dtype=getattr(torch, dtype))
            yield name, self.group.broadcast_(tensor)

    @property
    def rank(self) -> int:
        return self.group.rank

    @property
    def size(self) -> int:
        return self.group.size

    def sums(self, numbers: Sequence[float]) -> list[float]:
        """Each number summed over all processes."""
        return self.group.sums(numbers)

    def orthogonalized(self, matrices: Tensor) -> Tensor:
        """As one process would compute it, but each computes a part of them."""
        return shared_newton_schulz(matrices, self.group)


def described(tensors: dict[str, Tensor]) -> Description:
    """Names, dtypes and shapes, for processes that are about to receive the tensors."""
    return [
        (name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape))
        for name, tensor in tensors.items()
    ]


_WORTH_SHARING = 1 << 16
"""Numbers in the matrices of one shape from which processes share their orthogonalization."""


def shared_newton_schulz(matrices: Tensor, group: Group) -> Tensor:
    """Orthogonalizes a part of the matrices in each process, and gathers all.

    Args:
        matrices: (N, rows, columns), the same in every process.
        group: the processes.

    Returns:
        The same shape in bf16, as from `newton_schulz`.
    """
    count = len(matrices)
    # Sharing few small ones takes longer, and PyTorch would multiply a part of them otherwise.
    if group.size == 1 or matrices.numel() < _WORTH_SHARING:
        return newton_schulz(matrices)
    each = -(-count // group.size)  # parts of one size, for one all-gather; the last may be padding
    mine = matrices[group.rank * each : (group.rank + 1) * each]
    part = torch.zeros(each, *matrices.shape[1:], dtype=torch.bfloat16, device=matrices.device)
    if len(mine):
        part[: len(mine)] = newton_schulz(mine)
    parts = [torch.empty_like(part) for _ in range(group.size)]
    with group.watched():
        dist.all_gather(parts, part)
    return torch.cat(parts)[:count]


class GradientSum:
    """Sums gradients over all processes, beginning while the backward pass still computes others.

    Parameters are summed in buckets, in about the order in which their gradients come.

    Args:
        parameters: those with gradients, in the order of the forward pass.
        group: the processes, more than one.
    """

    def __init__(self, parameters: Sequence[Tensor], group: Group) -> None:
        self._group = group
        self._buckets: list[list[Tensor]] = [[]]
        self._bucket_of: dict[Tensor, int] = {}
        self._is_on = False
        size = 0
        for parameter in reversed(parameters):
            bytes_here = parameter.numel() * parameter.element_size()
            if size and size + bytes_here > _BUCKET_BYTES:
                self._buckets.append([])
                size = 0
            self._buckets[-1].append(parameter)
            self._bucket_of[parameter] = len(self._buckets) - 1
            size += bytes_here
            parameter.register_post_accumulate_grad_hook(self._is_ready)  # type: ignore[no-untyped-call]

    def start(self) -> None:
        """The next backward pass is the last one of a step: gradients are final as they come."""
        self._is_on, self._sums = True, list[_Sum]()
        self._missing = [len(bucket) for bucket in self._buckets]

    def finish(self) -> None:
        """Waits for the sums, and puts them in the place of the gradients."""
        self._is_on = False
        for bucket, pending in zip(self._buckets, self._sums, strict=True):
            with self._group.watched():
                total = pending.result()
            parts = torch.split(total, [parameter.numel() for parameter in bucket])
            for parameter, part in zip(bucket, parts, strict=True):
                parameter.grad = part.view_as(parameter)

    def _is_ready(self, parameter: Tensor) -> None:
        if not self._is_on:
            return
        self._missing[self._bucket_of[parameter]] -= 1
        # In the order of the buckets, because every process must send them in the same one.
        while len(self._sums) < len(self._buckets) and not self._missing[len(self._sums)]:
            grads = [p.grad for p in self._buckets[len(self._sums)] if p.grad is not None]
            flat = torch.cat([grad.reshape(-1) for grad in grads])
            with self._group.watched():
                self._sums.append(_Sum(flat, self._group.size))


class _Sum:
    """A sum over all processes, under way."""

    def __init__(self, flat: Tensor, size: int) -> None:
        self._count, self._size = flat.numel(), size
        # gloo adds in an order of its own. Two numbers have one sum; more are added up in the
        # order of the ranks, which is that of one process adding up the same passes.
        self._is_ordered = size > 2 and flat.device.type == "cpu"
        if self._is_ordered:
            padded = torch.nn.functional.pad(flat, (0, -self._count % size))
            self._flat = torch.empty_like(padded)
            self._work = dist.all_to_all_single(self._flat, padded, async_op=True)
            self._sent = padded  # must live until it is sent
        else:
            self._flat = flat
            self._work = dist.all_reduce(flat, async_op=True)

    def result(self) -> Tensor:
        assert self._work is not None
        self._work.wait()
        if not self._is_ordered:
            return self._flat
        mine, *others = self._flat.chunk(self._size)
        for other in others:
            mine += other
        dist.all_gather(list(self._sent.chunk(self._size)), mine.contiguous())
        return self._sent[: self._count]
