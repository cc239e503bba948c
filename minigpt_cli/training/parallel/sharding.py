"""The strategy `fsdp`: every process has a part of each weight (FSDP2, `fully_shard`).

The rows of every weight, its gradient and its optimizer's state are dealt out (Rajbhandari et al.
2020). A block's weights are gathered before it computes and dropped afterwards. Nothing else knows
PyTorch's `DTensor`; updates work on each process's rows, and files hold whole tensors.

Importing this module takes two seconds.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from minigpt_cli.language import _
from minigpt_cli.model.gpt import GPT
from minigpt_cli.runs.checkpoint import PendingFile, filled_model, model_tensors
from minigpt_cli.training.parallel.replication import Replicated


class Sharded(Replicated):
    """A part of each weight in every process."""

    name = "fsdp"
    in_lockstep = True  # a forward pass gathers weights from all processes
    _model: FSDPModule
    _mesh: DeviceMesh

    def place(self, model: GPT, device: torch.device) -> GPT:
        """Leaves each process its rows of the model, on its device."""
        self._mesh = init_device_mesh(device.type, (self.size,))
        # Blocks compute from copies in bf16, whose gradients are summed in fp32. Embeddings, the
        # last norm and the head stay as in one process.
        dtype = None if model.compute_dtype == torch.float32 else model.compute_dtype
        narrow = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False)
        for block in model.blocks:
            self._shard(block, narrow)
        self._model = self._shard(model, MixedPrecisionPolicy(cast_forward_inputs=False))
        return model

    def _shard(self, module: torch.nn.Module, policy: MixedPrecisionPolicy) -> FSDPModule:
        sharded = fully_shard(module, mesh=self._mesh, mp_policy=policy)
        # Gradients are summed: a pass's loss is already its share of the mean.
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)
        return sharded

    def begin_backward(self, is_last: bool) -> None:
        """Gradients are summed over the processes in the last pass of a step alone."""
        self._model.set_requires_gradient_sync(is_last)

    def weights_changed(self) -> None:
        """Drops the weights outside the blocks, which stay gathered after a forward pass."""
        self._model.reshard()

    def norm(self, tensors: Sequence[Tensor]) -> Tensor:
        """The norm of all tensors together, from the squares of each process's parts."""
        mine = [self.local(tensor) for tensor in tensors]
        square = super().norm([tensor for tensor in mine if tensor.numel()]).square()
        return self.group.sum_(square).sqrt()

    def clip_(self, parameters: Sequence[Tensor], most: float, norm: Tensor) -> None:
        """Scales the gradients down to a norm of at most `most`."""
        scale = (most / (norm + 1e-6)).clamp(max=1.0)  # as `clip_grads_with_norm_` does
        for parameter in parameters:
            if parameter.grad is not None:
                self.local(parameter.grad).mul_(scale)

    def gathered(self, file: PendingFile) -> PendingFile:
        """A file with whole tensors, gathered one after another; empty but on rank 0."""
        return PendingFile(file.path, self._whole(file.tensors), file.metadata)

    def kept(self, file: PendingFile) -> PendingFile:
        """The same: they have been gathered into new tensors."""
        return self.gathered(file)

    def whole_model(self, model: GPT) -> GPT | None:
        """The model in one piece on rank 0; None elsewhere."""
        tensors = self._whole(model_tensors(model))
        if not self.group.is_first:
            return None
        whole = filled_model(model.config, model.vocab_size, tensors, Path(_("the model")))
        whole.compute_dtype = model.compute_dtype
        return whole.to(next(model.parameters()).device).eval()

    def _whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        whole = {}
        for name, tensor in tensors.items():
            with self.group.watched():
                one = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if self.group.is_first:
                whole[name] = one.detach().cpu()
        return whole

    def local(self, tensor: Tensor) -> Tensor:
        """This process's rows."""
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor

    def first_row(self, parameter: Tensor) -> int:
        """The first of this process's rows; each but the last has the same number."""
        return min(self.rank * self._rows_each(parameter), parameter.size(0))

    def whole(self, update: Tensor, parameter: Tensor) -> Tensor:
        """All rows, in bf16: half the bytes, and what Newton–Schulz begins with."""
        each = self._rows_each(parameter)
        part = torch.zeros(each, *update.shape[1:], dtype=torch.bfloat16, device=update.device)
        part[: len(update)] = update
        parts = [torch.empty_like(part) for _ in range(self.size)]
        with self.group.watched():
            dist.all_gather(parts, part)
        return torch.cat(parts)[: parameter.size(0)]

    def _rows_each(self, parameter: Tensor) -> int:
        return -(-parameter.size(0) // self.size)

    def assign(self, like: Tensor, whole: Tensor) -> Tensor:
        """This process's rows of a tensor, as a sharded one."""
        if not isinstance(like, DTensor):
            return whole.to(like.device)
        # Every process has the whole; none has to send it.
        whole = whole.to(like.device)
        return distribute_tensor(whole, self._mesh, [Shard(0)], src_data_rank=None)
