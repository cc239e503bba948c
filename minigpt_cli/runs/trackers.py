"""Programs that draw a run's curves elsewhere, behind one small protocol.

Another is a class with these three methods and a line in `open_tracker`.
"""

from pathlib import Path
from typing import Protocol

from minigpt_cli.config.choices import TrackerName
from minigpt_cli.config.schema import RunConfig
from minigpt_cli.errors import ConfigError
from minigpt_cli.language import _
from minigpt_cli.runs.metrics import EvaluationRow, StepRow

_STEP = {
    "train/loss": "loss",
    "train/learning_rate": "learning_rate",
    "train/grad_norm": "grad_norm",
    "train/tokens_per_second": "tokens_per_second",
}
_EVALUATION = {"val/loss": "val_loss", "val/bits_per_byte": "bits_per_byte", "train/mfu": "mfu"}


class Tracker(Protocol):
    """Receives a run's numbers. Any method may fail: the caller lets the run go on."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Takes measurements by name; steps go back where the run was resumed or rewound."""

    def text(self, step: int, name: str, text: str) -> None:
        """Takes a text, as the model or the settings have it."""

    def close(self) -> None:
        """Writes down what is not yet."""


def measurements(row: StepRow | EvaluationRow) -> dict[str, float]:
    """A row's numbers by the names that trackers know, grouped by their first part."""
    names = _STEP if isinstance(row, StepRow) else _EVALUATION
    values = {name: getattr(row, attribute) for name, attribute in names.items()}
    return {name: float(value) for name, value in values.items() if value is not None}


def open_tracker(name: TrackerName, run: Path, config: RunConfig, step: int) -> Tracker:
    """Begins to track a run, or goes on with it.

    Args:
        name: which.
        run: the run's folder, which takes the tracker's files.
        config: the run's settings.
        step: the steps done so far; what was tracked later is replaced.

    Raises:
        ConfigError: the tracker is not installed.
        Exception: whatever the tracker raises.
    """
    if name == "tensorboard":
        from minigpt_cli.runs.tensorboard import TensorBoard

        return TensorBoard(run / "tensorboard", config, step)
    check_installed(name)
    from minigpt_cli.runs.wandb_tracker import WeightsAndBiases

    return WeightsAndBiases(run, config, step)


def check_installed(name: TrackerName) -> None:
    """Raises unless a tracker can be used.

    Raises:
        ConfigError: it is not installed.
    """
    if name != "wandb":
        return
    try:
        import wandb  # noqa: F401
    except ImportError:
        raise ConfigError(
            _("wandb is not installed; install it with: pip install 'minigpt-cli[trackers]'")
        ) from None
