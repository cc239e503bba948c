"""What a run has to remember to go on as if nothing had happened, and its file."""

import json
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter
from torch import Tensor

from minigpt_cli.config.schema import DataConfig, RunConfig
from minigpt_cli.errors import CheckpointError
from minigpt_cli.io.strict_json import read_json
from minigpt_cli.model.gpt import GPT
from minigpt_cli.runs.checkpoint import PendingFile, load_model_tensors, model_tensors, read_tensors
from minigpt_cli.runs.checkpoint_header import read_header
from minigpt_cli.training.optimizer import Optimizer
from minigpt_cli.training.stability import MOST_REWINDS

RECENT_STEPS = 50
"""The training loss that is reported is the mean of at most so many last steps."""
_FORMAT = "minigpt-state"


Step = Annotated[int, Field(ge=0, lt=2**31)]
Loss = Annotated[float, Field(ge=0, lt=1e39)]  # of fp32
Seconds = Annotated[float, Field(ge=0, lt=1e12)]


@dataclass
class TrainState:
    """What the loop itself has to remember beside weights and optimizer."""

    __pydantic_config__: ClassVar = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    step: Step = 0
    best_val_loss: Loss | None = None
    best_step: Step = 0
    elapsed: Seconds = 0.0
    step_seconds: Seconds = 0.0
    recent_losses: deque[Loss] = field(default_factory=lambda: deque(maxlen=RECENT_STEPS))
    skipped: Annotated[list[Step], Field(max_length=MOST_REWINDS)] = field(default_factory=list)
    """Steps whose batch is left out, since its loss or gradient was not finite."""

    @property
    def recent_loss(self) -> float | None:
        """Mean training loss of the last steps; None before the first."""
        recent = self.recent_losses
        return sum(recent) / len(recent) if recent else None


@dataclass(frozen=True)
class SavedRun:
    """What a run's state says of the run."""

    config: RunConfig
    """What it was trained with."""
    fingerprint: str
    """Of its prepared text."""
    skipped: tuple[int, ...] = ()
    """Steps whose batch was left out."""

    @property
    def data(self) -> DataConfig:
        return self.config.data


def state_file(
    path: Path, run: SavedRun, state: TrainState, model: GPT, optimizer: Optimizer
) -> PendingFile:
    """Everything that `--resume` needs, as one file's content.

    Args:
        path: where it is to lie.
        run: what it is the state of.
        state: the loop's own memory.
        model: its weights are taken.
        optimizer: its state is taken.
    """
    tensors = {f"model.{name}": t for name, t in model_tensors(model).items()}
    tensors |= {f"optimizer.{name}": t for name, t in optimizer.state_tensors().items()}
    metadata = {
        "format": _FORMAT,
        "state": json.dumps({**asdict(state), "recent_losses": list(state.recent_losses)}),
        "config": run.config.model_dump_json(),
        "fingerprint": run.fingerprint,
    }
    return PendingFile(path, tensors, metadata)


def restore_state(path: Path, model: GPT, optimizer: Optimizer, fingerprint: str) -> TrainState:
    """Fills a model and an optimizer from a file, and returns the loop's own memory.

    Raises:
        CheckpointError: the file is missing, damaged, or belongs to another text or model.
    """
    tensors, metadata = read_tensors(path)
    state = _loop_memory(metadata, path)
    if metadata.get("fingerprint") != fingerprint:
        raise CheckpointError(
            f"{path}: was trained on another text or tokenizer (fingerprint "
            f"{metadata.get('fingerprint')}, now {fingerprint}); "
            "bring the text back as it was, or train anew"
        )
    weights, memory = _part(tensors, "model."), _part(tensors, "optimizer.")
    learned = state.step > sum(step <= state.step for step in state.skipped)
    if len(weights) + len(memory) != len(tensors) or bool(memory) != learned:
        raise CheckpointError(f"{path}: its tensors are not those of a run; use another copy")
    load_model_tensors(model, weights, path)
    optimizer.load_state_tensors(memory, path)
    return state


def saved_run(path: Path) -> SavedRun:
    """Reads a state's header, which says enough of the run.

    Raises:
        CheckpointError: the file is missing, damaged, or not the state of a run.
    """
    metadata = read_header(path).metadata
    state = _loop_memory(metadata, path)
    try:
        config = RunConfig.model_validate_json(metadata["config"])
        return SavedRun(config, metadata["fingerprint"], tuple(state.skipped))
    except (KeyError, ValueError):
        raise _no_state(path) from None


def _loop_memory(metadata: dict[str, str], path: Path) -> TrainState:
    if metadata.get("format") != _FORMAT:
        raise _no_state(path)
    try:
        read_json(metadata["state"])  # which is stricter than what comes next
        state = TypeAdapter(TrainState).validate_json(metadata["state"])
    except (KeyError, ValueError):
        raise _no_state(path) from None
    state.recent_losses = deque(state.recent_losses, maxlen=RECENT_STEPS)
    return state


def _no_state(path: Path) -> CheckpointError:
    return CheckpointError(f"{path}: not the state of a run; use another copy")


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
