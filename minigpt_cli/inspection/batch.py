"""The text of one training step: its batch is a function of the seed and the step."""

from dataclasses import dataclass

from minigpt_cli.data.batches import training_batches
from minigpt_cli.data.dataset import Dataset
from minigpt_cli.errors import ConfigError
from minigpt_cli.language import _
from minigpt_cli.training.schedule import learning_rate
from minigpt_cli.training.state import SavedRun


@dataclass(frozen=True)
class BatchWindow:
    """One of the sequences of a step."""

    start: int
    """Index of its first token in the training split."""
    text: str


@dataclass(frozen=True)
class StepBatch:
    """Everything that goes into one optimizer step."""

    step: int
    learning_rate: float
    skipped: bool
    """Whether the run skipped it because its loss or gradient was not finite."""
    windows: tuple[BatchWindow, ...]


def step_batch(run: SavedRun, dataset: Dataset, step: int) -> StepBatch:
    """The windows that a step, from 1, was or will be computed from.

    Raises:
        ConfigError: the run has no such step.
    """
    train, T = run.config.train, run.config.model.block_size
    if not 1 <= step <= train.max_iters:
        raise ConfigError(
            _("step {step}: the run has steps 1 to {max_iters}").format(
                step=step, max_iters=train.max_iters
            )
        )
    tokens = dataset.tokens("train")
    sampler = training_batches(tokens, run.config.model, run.data, train, dataset.train_parts)
    numbers = range((step - 1) * train.grad_accum_steps, step * train.grad_accum_steps)
    return StepBatch(
        step=step,
        learning_rate=learning_rate(run.config.optimizer, step, train.max_iters),
        skipped=step in run.skipped,
        windows=tuple(
            BatchWindow(int(start), dataset.tokenizer.decode(tokens[start : start + T + 1]))
            for number in numbers
            for start in sampler.starts(number)
        ),
    )
