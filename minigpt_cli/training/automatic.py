"""`--preset auto`: sizes, steps and dropout that suit a text and a machine."""

from dataclasses import dataclass
from typing import Any

from minigpt_cli.config.loading import Overrides, resolve
from minigpt_cli.config.schema import RunConfig
from minigpt_cli.io.text import duration, three_digits
from minigpt_cli.language import _
from minigpt_cli.model.flops import forward_flops_per_token

AUTO = "auto"
"""The name of the preset."""
_SECONDS = 600.0
"""What a run may take on this machine."""
_UTILIZATION = 0.2
"""The share of the measured peak that training reaches; small models reach less."""
_FEWEST_STEPS, _MOST_STEPS = 100, 5000
_EMA_DECAY = 0.99
"""Of the weights' average, as in the presets."""


@dataclass(frozen=True)
class _Size:
    """A model, and how often it should read a text that is just long enough for it."""

    tokens: int
    """The shortest text for it, in tokens."""
    epochs: int
    dropout: float
    model: dict[str, int]
    batch_size: int


_SIZES = (
    _Size(0, 20, 0.2, {"n_layer": 2, "n_head": 2, "n_embd": 64, "block_size": 64}, 8),
    _Size(50_000, 15, 0.2, {"n_layer": 3, "n_head": 4, "n_embd": 96, "block_size": 128}, 12),
    _Size(400_000, 4, 0.0, {"n_layer": 3, "n_head": 4, "n_embd": 128, "block_size": 256}, 12),
    _Size(4_000_000, 2, 0.0, {"n_layer": 6, "n_head": 6, "n_embd": 384, "block_size": 256}, 32),
)
"""From the smallest; the third has the sizes and epochs of `small` on Shakespeare."""


def automatic_config(
    train_tokens: int, vocab_size: int, flops_per_second: float, overrides: Overrides
) -> tuple[RunConfig, str]:
    """Chooses the largest model that a text is long enough for and that this machine can train.

    Args:
        train_tokens: tokens in the training split.
        vocab_size: of its tokenizer.
        flops_per_second: this machine's measured peak.
        overrides: settings of the user's own, which win.

    Returns:
        The configuration, and in one line what was chosen and why.

    Raises:
        ConfigError: in the overrides.
    """
    fitting = [size for size in _SIZES if train_tokens >= size.tokens]
    for size in reversed(fitting):
        config = resolve(_tables(size, train_tokens), overrides, _("preset auto"))
        flops = 3 * forward_flops_per_token(config.model, vocab_size)
        per_step = config.train.batch_size * config.model.block_size * flops
        affordable = int(_SECONDS * _UTILIZATION * flops_per_second / per_step)
        if affordable >= config.train.max_iters or size is fitting[0]:
            break
    if affordable < config.train.max_iters and "train.max_iters" not in overrides:
        steps = max(_FEWEST_STEPS, affordable)
        shortened: dict[str, Any] = {"train.max_iters": steps, **overrides}
        config = resolve(_tables(size, train_tokens), shortened, _("preset auto"))
    model, train = config.model, config.train
    epochs = train.max_iters * train.batch_size * model.block_size / train_tokens
    chosen = _(
        "{layers} layers, {width} wide, block {block_size}, {steps:,} steps, dropout {dropout:g}: "
        "{epochs} epochs of a text of {tokens:,} tokens"
    ).format(
        layers=model.n_layer, width=model.n_embd, block_size=model.block_size,
        steps=train.max_iters, dropout=model.dropout, epochs=three_digits(epochs),
        tokens=train_tokens,
    )  # fmt: skip
    if train.max_iters <= affordable:
        chosen += _(", which this machine does within {time}").format(time=duration(_SECONDS))
    return config, chosen


def _tables(size: _Size, train_tokens: int) -> dict[str, Any]:
    per_step = size.batch_size * size.model["block_size"]
    steps = round(size.epochs * train_tokens / per_step, -1)
    train = {
        "max_iters": max(_FEWEST_STEPS, min(_MOST_STEPS, int(steps))),
        "batch_size": size.batch_size,
        "patience": 3,
    }
    model = {**size.model, "dropout": size.dropout}
    return {"model": model, "optimizer": {"ema_decay": _EMA_DECAY}, "train": train}
