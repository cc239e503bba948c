"""The learning rate of every step, and when to evaluate: pure functions, which need no state."""

import math

from minigpt_cli.config.schema import OptimizerConfig, TrainConfig

_FIRST_EVALUATION, _LEAST_EVALUATIONS, _LONGEST_INTERVAL = 50, 6, 500


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


def evaluates(train: TrainConfig, step: int) -> bool:
    """Whether to evaluate after a step; the first is 1, and the last one always is."""
    if step == train.max_iters:
        return True
    if train.eval_interval != "auto":
        return step % train.eval_interval == 0
    return step == _FIRST_EVALUATION or step % _automatic_interval(train.max_iters) == 0


def _automatic_interval(max_iters: int) -> int:
    """The largest round number (1, 2, 2.5 or 5 times a power of ten) that gives enough."""
    most = max(1, max_iters // _LEAST_EVALUATIONS)
    if max_iters > _LEAST_EVALUATIONS * _FIRST_EVALUATION:  # the first comes in addition
        most = max_iters // (_LEAST_EVALUATIONS - 1)
    most = min(most, _LONGEST_INTERVAL)
    power: int = 10 ** int(math.log10(most))
    return max(n for n in (power, 2 * power, 5 * power // 2, 5 * power) if n <= most)
