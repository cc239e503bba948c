"""What resuming a run exactly needs, and the file it is saved in."""

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import ConfigDict, Field, TypeAdapter
from torch import Tensor

from minigpt_cli import __version__
from minigpt_cli.config.schema import DataConfig, RunConfig
from minigpt_cli.errors import CheckpointError
from minigpt_cli.evaluation import Evaluation
from minigpt_cli.io.strict_json import read_json
from minigpt_cli.language import _, mark
from minigpt_cli.model.gpt import GPT
from minigpt_cli.runs.checkpoint import (
    Checkpoint,
    PendingFile,
    check_model_tensors,
    checkpoint_file,
    load_checkpoint,
    load_model_tensors,
    model_tensors,
    read_tensors,
)
from minigpt_cli.runs.checkpoint_header import (
    LORA_A,
    STATE_FORMAT,
    CheckpointMetadata,
    damaged,
    read_header,
)
from minigpt_cli.runs.folder import CHECKPOINT, RunFolder
from minigpt_cli.runs.metrics import StepNumber
from minigpt_cli.training.lora import adapter_tensors, add_adapters, merge, merged
from minigpt_cli.training.optimizers.optimizer import Optimizer
from minigpt_cli.training.parallel.replication import Description, described
from minigpt_cli.training.stability import MAX_REWINDS

if TYPE_CHECKING:
    from minigpt_cli.training.learner import Learner

RECENT_STEPS = 50
"""The reported training loss is the mean of at most this many last steps."""
_MODEL, _OPTIMIZER = "model.", "optimizer."
"""What the names of a state's tensors begin with."""
_NOT_A_STATE = mark("not the state of a run")

Loss = Annotated[float, Field(ge=0, lt=1e39)]  # of fp32
Seconds = Annotated[float, Field(ge=0, lt=1e12)]


@dataclass
class TrainState:
    """The training loop's own variables, besides weights and optimizer state."""

    __pydantic_config__: ClassVar = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    step: StepNumber = 0
    best_val_loss: Loss | None = None
    best_step: StepNumber = 0
    evaluations_since_best: StepNumber = 0
    elapsed: Seconds = 0.0
    step_seconds: Seconds = 0.0
    recent_losses: deque[Loss] = field(default_factory=lambda: deque(maxlen=RECENT_STEPS))
    skipped: Annotated[list[StepNumber], Field(max_length=MAX_REWINDS)] = field(
        default_factory=list
    )
    """Steps whose batch is skipped, because its loss or gradient was not finite."""

    @property
    def recent_loss(self) -> float | None:
        """Mean training loss of the last steps; None before the first."""
        recent = self.recent_losses
        return sum(recent) / len(recent) if recent else None


@dataclass(frozen=True)
class SavedRun:
    """A run as its saved state records it."""

    config: RunConfig
    """The run's settings."""
    fingerprint: str
    """Fingerprint of the prepared text."""
    skipped: tuple[int, ...] = ()
    """Steps whose batch was skipped."""

    @property
    def data(self) -> DataConfig:
        return self.config.data


def state_file(
    path: Path, run: SavedRun, state: TrainState, model: GPT, optimizer: Optimizer
) -> PendingFile:
    """Everything that resuming needs, as the content of one file."""
    tensors = {f"{_MODEL}{name}": t for name, t in model_tensors(model).items()}
    tensors |= {f"{_OPTIMIZER}{name}": t for name, t in optimizer.state_tensors().items()}
    metadata = {
        "format": STATE_FORMAT,
        "state": to_json(state),
        "config": run.config.model_dump_json(),
        "fingerprint": run.fingerprint,
    }
    return PendingFile(path, tensors, metadata)


def model_file(path: Path, learner: "Learner", metadata: CheckpointMetadata) -> PendingFile:
    """The model as it is evaluated, with whole tensors, as the content of one file."""
    model, optimizer = learner.model, learner.optimizer
    with optimizer.averaged():
        adapters = adapter_tensors(model)
        with merged(model):
            file = checkpoint_file(path, model, metadata, adapters)
        return learner.strategy.kept(file)


def read_state(
    path: Path, model: GPT, optimizer: Optimizer, fingerprint: str
) -> tuple[TrainState, dict[str, Tensor]]:
    """Reads and verifies a state for a model and an optimizer.

    Returns:
        The training loop's variables, and the tensors for `fill`.

    Raises:
        CheckpointError: the file is missing, damaged, or belongs to another text or model.
    """
    tensors, metadata = read_tensors(path)
    state = _read_state(metadata, path)
    if metadata.get("fingerprint") != fingerprint:
        raise CheckpointError(
            _(
                "{path}: was trained on another text or tokenizer (fingerprint {trained}, now "
                "{fingerprint}); leave out --data to go on with the text as it was, or train a new "
                "model"
            ).format(path=path, trained=metadata.get("fingerprint"), fingerprint=fingerprint)
        )
    weights, moments = _part(tensors, _MODEL), _part(tensors, _OPTIMIZER)
    learned = state.step > sum(step <= state.step for step in state.skipped)
    if len(weights) + len(moments) != len(tensors) or bool(moments) != learned:
        raise damaged(path, _("its tensors are not those of a run"))
    check_model_tensors(model, weights, path)
    optimizer.check_state_tensors(moments, path)
    return state, tensors


def fill(model: GPT, optimizer: Optimizer, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Fills a model and an optimizer with the verified tensors of a state, one after another."""
    places = model_tensors(model)
    optimizer.forget_state()
    with torch.no_grad():
        for name, tensor in tensors:
            if name.startswith(_MODEL):
                target = places[name.removeprefix(_MODEL)]
                target.copy_(optimizer.placement.assign(target, tensor))
            else:
                optimizer.load_state_tensor(name.removeprefix(_OPTIMIZER), tensor)


def restore(folder: RunFolder, learner: "Learner") -> TrainState:
    """Fills a learner from a run's state, which rank 0 reads; returns the loop's variables.

    Raises:
        CheckpointError: the state is missing, damaged, or belongs to another text or model.
    """
    model, optimizer, strategy = learner.model, learner.optimizer, learner.strategy
    tensors: dict[str, Tensor] = {}

    def read() -> tuple[str, Description]:
        nonlocal tensors
        fingerprint = learner.dataset.metadata.fingerprint
        state, tensors = read_state(folder.state, model, optimizer, fingerprint)
        folder.cut_metrics(state.step)
        return to_json(state), described(tensors)

    state, description = learner.group.first(read)
    fill(model, optimizer, strategy.received(tensors, description))
    return from_json(state)


def checkpoint_metadata(
    learner: "Learner", state: TrainState, result: Evaluation | None
) -> CheckpointMetadata:
    """What a checkpoint says of its model; without an evaluation, no validation loss."""
    config, metadata = learner.config, learner.dataset.metadata
    return CheckpointMetadata(
        version=__version__,
        model=config.model,
        vocab_size=learner.model.vocab_size,
        tokenizer=learner.dataset.tokenizer.to_json(),
        data=config.data,
        corpus=metadata.corpus,
        fingerprint=metadata.fingerprint,
        step=state.step,
        train_loss=state.recent_loss,
        val_loss=result.loss if result else None,
        bits_per_byte=result.bits_per_byte if result else None,
        optimizer=config.optimizer,
        train=config.train,
        lora=config.lora,
    )


def to_json(state: TrainState) -> str:
    """The training loop's variables as JSON; `from_json` is the way back."""
    return json.dumps({**asdict(state), "recent_losses": list(state.recent_losses)})


def from_json(text: str) -> TrainState:
    """The training loop's variables.

    Raises:
        ValueError: the text is not JSON, or not of these variables.
    """
    read_json(text)  # stricter than what follows
    state = TypeAdapter(TrainState).validate_json(text)
    state.recent_losses = deque(state.recent_losses, maxlen=RECENT_STEPS)
    return state


def saved_run(path: Path) -> SavedRun:
    """Reads a run from the header of its state.

    Raises:
        CheckpointError: the file is missing, damaged, or not the state of a run.
    """
    metadata = read_header(path).metadata
    state = _read_state(metadata, path)
    try:
        config = RunConfig.model_validate_json(metadata["config"])
        return SavedRun(config, metadata["fingerprint"], tuple(state.skipped))
    except (KeyError, ValueError):
        raise damaged(path, _(_NOT_A_STATE)) from None


def _read_state(metadata: dict[str, str], path: Path) -> TrainState:
    if metadata.get("format") != STATE_FORMAT:
        raise damaged(path, _(_NOT_A_STATE))
    try:
        return from_json(metadata["state"])
    except (KeyError, ValueError):
        raise damaged(path, _(_NOT_A_STATE)) from None


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def load_last(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """The last model of a run, from its state: its averaged weights, where an average is kept.

    The tokenizer is that of the best model beside it.

    Raises:
        CheckpointError: the state or the checkpoint is missing or damaged, or they differ.
    """
    tensors, metadata = read_tensors(path)
    state = _read_state(metadata, path)
    best = load_checkpoint(path.with_name(CHECKPOINT), device)
    if best.metadata.fingerprint != metadata.get("fingerprint"):
        raise CheckpointError(
            _("{path}: does not belong to the {name} beside it").format(path=path, name=CHECKPOINT)
        )
    weights, adapters = _part(tensors, _MODEL), {}
    moments = _part(tensors, _OPTIMIZER)
    weights |= {name: moments[key] for name in weights if (key := f"{name}.average") in moments}
    if best.metadata.lora is not None:
        layers = {name.removesuffix(LORA_A) for name in weights if name.endswith(LORA_A)}
        add_adapters(best.model, best.metadata.lora, layers)
    load_model_tensors(best.model, weights, path)
    if best.metadata.lora is not None:
        adapters = adapter_tensors(best.model)
        merge(best.model)
    known = replace(
        best.metadata,
        step=state.step, train_loss=state.recent_loss, val_loss=None, bits_per_byte=None,
    )  # fmt: skip
    return replace(best, metadata=known, adapters=adapters)


def is_state(path: Path) -> bool:
    """Whether a file is the state of a run.

    Raises:
        CheckpointError: the file is missing, or not a safetensors file.
    """
    return read_header(path).metadata.get("format") == STATE_FORMAT
