"""Fits a run into a given amount of memory, by splitting its batches into more passes."""

from collections.abc import Callable

from minigpt_cli.config.schema import RunConfig
from minigpt_cli.errors import ConfigError
from minigpt_cli.training.memory import Memory, Pass, training_memory


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
        checkpointing=bool(getattr(train, "activation_checkpointing", False)),
    )
    return training_memory(config.model, vocab_size, config.optimizer, of)


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
    fitting = (n for n in divisors(batch * passes, batch) if memory_at(n).peak <= limit)
    size = next(fitting, None)
    if size is None:
        raise ConfigError(
            f"one sequence at a time takes {_gb(memory_at(1).peak)}, and {_gb(limit)} are allowed; "
            "use a smaller model.block_size, model.n_layer or model.n_embd, or allow more",
            ("model.block_size", "model.n_layer"),
        )
    expected = f"{_gb(memory_at(size).peak)} of {_gb(limit)} expected"
    if size == batch:
        return config, f"Memory: {expected}; train.batch_size stays {batch}"
    update = {"batch_size": size, "grad_accum_steps": batch * passes // size}
    if config.data.sampling == "random":
        differ = "other sequences, because data.sampling is random"
    else:
        differ = "the same sequences a step, equal but for rounding"
        differ += " and other dropout masks" if config.model.dropout else ""
    return config.model_copy(update={"train": train.model_copy(update=update)}), (
        f"Memory: {expected}, with train.batch_size {batch} → {size} and train.grad_accum_steps "
        f"{passes} → {update['grad_accum_steps']} ({differ})"
    )


def divisors(number: int, most: int) -> list[int]:
    """Divisors from the largest that is at most `most`."""
    return [size for size in range(min(most, number), 0, -1) if number % size == 0]


def _gb(number: int) -> str:
    return f"{number / 1e9:.2f} GB"
