"""Fits a run into a given amount of memory, by splitting its batches into more passes."""

from collections.abc import Callable
from math import isqrt

from minigpt_cli.config.schema import RunConfig
from minigpt_cli.errors import ConfigError
from minigpt_cli.language import _
from minigpt_cli.training.lora import adapter_count
from minigpt_cli.training.planning.memory import Memory, Pass, training_memory


def memory_here(config: RunConfig, vocab_size: int, batch_size: int | None = None) -> Memory:
    """What training takes on this machine.

    Args:
        config: with device and precision resolved (see `setup.resolve_machine`).
        vocab_size: V.
        batch_size: sequences in a pass, if other than the configuration's.
    """
    train = config.train
    size = batch_size or train.batch_size
    of = Pass(
        batch_size=size,
        bytes_per_value=2 if train.precision == "bf16" else 4,
        on_cpu=train.device == "cpu",
        accumulates=train.batch_size * train.grad_accum_steps > size,
        checkpointing=train.activation_checkpointing,
    )
    return training_memory(
        config.model, vocab_size, config.optimizer, of, adapters=adapter_count(config)
    )


def fit_batch(
    config: RunConfig, limit: int, memory_at: Callable[[int], Memory]
) -> tuple[RunConfig, str]:
    """Splits batches until a pass fits: the same sequences a step, in more passes.

    The gradient of a step is the same mean over the same sequences, added up in another order, so
    that results differ by rounding; with dropout, also by the masks.

    Args:
        config: the run.
        limit: bytes.
        memory_at: what the run takes with this many sequences in a pass.

    Returns:
        The configuration, and in one line what was chosen.

    Raises:
        ConfigError: not even one sequence fits.
    """
    train = config.train
    batch, passes = train.batch_size, train.grad_accum_steps
    fitting = (n for n in smaller_batches(config) if memory_at(n).peak <= limit)
    size = next(fitting, None)
    if size is None:
        raise ConfigError(
            _(
                "one sequence at a time takes {needed}, and {allowed} are allowed; use a smaller "
                "model.block_size, model.n_layer or model.n_embd, or allow more"
            ).format(needed=_gb(memory_at(1).peak), allowed=_gb(limit)),
            ("model.block_size", "model.n_layer"),
        )
    needed, allowed = _gb(memory_at(size).peak), _gb(limit)
    if size == batch:
        stays = _("Memory: {needed} of {allowed} expected; train.batch_size stays {size}")
        return config, stays.format(needed=needed, allowed=allowed, size=size)
    update = {"batch_size": size, "grad_accum_steps": batch * passes // size}
    if config.data.sampling == "random":
        differ = _("other sequences, because data.sampling is random")
    elif config.model.dropout:
        differ = _("the same sequences a step, equal but for rounding and other dropout masks")
    else:
        differ = _("the same sequences a step, equal but for rounding")
    note = _(
        "Memory: {needed} of {allowed} expected, with train.batch_size {batch} → {size} and "
        "train.grad_accum_steps {passes} → {more_passes} ({differ})"
    ).format(
        needed=needed, allowed=allowed, batch=batch, size=size, passes=passes,
        more_passes=update["grad_accum_steps"], differ=differ,
    )  # fmt: skip
    return config.model_copy(update={"train": train.model_copy(update=update)}), note


def smaller_batches(config: RunConfig) -> list[int]:
    """Batch sizes up to the configuration's that divide a step's sequences, the largest first."""
    batch, passes = config.train.batch_size, config.train.grad_accum_steps
    sizes = {a * b for a in _divisors(batch) for b in _divisors(passes)}
    return sorted((size for size in sizes if size <= batch), reverse=True)


def _divisors(number: int) -> list[int]:
    small = [n for n in range(1, isqrt(number) + 1) if number % n == 0]
    return [*small, *(number // n for n in small)]


def _gb(number: int) -> str:
    return f"{number / 1e9:.2f} GB"
