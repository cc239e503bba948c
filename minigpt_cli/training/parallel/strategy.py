"""Which strategy several processes train with."""

import torch

from minigpt_cli.config.schema import RunConfig
from minigpt_cli.device import machine_memory
from minigpt_cli.errors import ConfigError
from minigpt_cli.language import _
from minigpt_cli.model.gpt import GPT
from minigpt_cli.training.parallel.distributed import Group
from minigpt_cli.training.parallel.replication import Replicated
from minigpt_cli.training.planning.memory import replica_fits


def strategy_for(config: RunConfig, group: Group, model: GPT, device: torch.device) -> Replicated:
    """The strategy for a model: as set, or `ddp` while a copy of everything fits one device.

    Args:
        config: the run's, which sets `auto`, `ddp` or `fsdp`.
        group: the processes; one on its own has nothing to distribute.
        model: to be trained.
        device: of this process.

    Raises:
        ConfigError: adapters are trained, which cannot be shared out.
    """
    setting = config.distributed.strategy
    if setting == "auto" and config.lora is not None:
        setting = "ddp"
    averages = config.optimizer.ema_decay > 0
    if chosen(setting, group, model, device, averages) == "fsdp":
        if config.lora is not None:
            raise ConfigError(
                _(
                    "distributed.strategy = fsdp: adapters (lora) are trained with copies of the "
                    "model only; use ddp"
                ),
                ("distributed.strategy=ddp",),
            )
        # Imported late: it takes two seconds.
        from minigpt_cli.training.parallel.sharding import Sharded

        return Sharded(group)
    return Replicated(group)


def chosen(
    setting: str, group: Group, model: GPT, device: torch.device, averages: bool = False
) -> str:
    """`ddp` or `fsdp`, the same in every process; `ddp` for one."""
    if group.size == 1:
        return "ddp"
    if setting != "auto":
        return setting
    parameters = sum(parameter.numel() for parameter in model.parameters())
    fits = replica_fits(parameters, _memory(device, group), averages)
    return "fsdp" if group.agreed(int(not fits))[0] else "ddp"


def _memory(device: torch.device, group: Group) -> float:
    """Bytes of memory for one process."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    memory = machine_memory()
    return float("inf") if memory is None else memory / group.local_size
