"""The learning rate of every step: pure functions, so resuming needs no state."""

import math

from minigpt_cli.config.schema import OptimizerConfig


def lr_scale(config: OptimizerConfig, step: int, max_iters: int) -> float:
    """The learning rate of a step, 0 for the first update, as a share of its peak.

    It rises linearly in `warmup_iters` steps. Then it stays (`constant`), falls as a cosine
    (`cosine`, Loshchilov & Hutter 2017), or stays and falls linearly at the end (`wsd`,
    Hu et al. 2024); down to `min_lr / learning_rate`.
    """
    warmup = min(1.0, (step + 1) / max(1, config.warmup_iters))
    floor = config.min_lr / config.learning_rate
    if config.schedule == "constant":
        return warmup
    if config.schedule == "cosine":
        done = max(0, step - config.warmup_iters) / max(1, max_iters - config.warmup_iters)
        decay = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    else:
        decay = min(1.0, max(0.0, max_iters - step) / (config.decay_fraction * max_iters))
    return min(warmup, floor + (1 - floor) * decay)


def learning_rate(config: OptimizerConfig, step: int, max_iters: int) -> float:
    """The learning rate of a step, of the optimizer that `config` names.

    Steps are counted from 1, as in reports.
    """
    return config.learning_rate * lr_scale(config, step - 1, max_iters)
