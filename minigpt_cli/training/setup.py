"""From what the user asked for to a trainer that is ready to go, and what it would cost."""

import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from minigpt_cli.config.loading import Overrides, load_run_config, read_toml, resolve
from minigpt_cli.config.schema import RunConfig, differences
from minigpt_cli.data.dataset import Dataset
from minigpt_cli.data.workspace import Workspace
from minigpt_cli.device import dtype_name, pick_device, pick_dtype
from minigpt_cli.errors import CheckpointError, CorpusError, TrainingError
from minigpt_cli.evaluation import evaluate
from minigpt_cli.model.compilation import should_compile
from minigpt_cli.runs.folder import RunFolder, new_run
from minigpt_cli.training.stability import NotFinite
from minigpt_cli.training.state import saved_run
from minigpt_cli.training.trainer import Trainer

_ESTIMATED_STEPS = 3

RESUMABLE_SETTINGS = {
    "train.max_iters", "train.eval_interval", "train.eval_tokens", "train.log_interval",
    "train.sample_tokens", "train.save_every_seconds", "train.device", "train.compile",
    "train.threads", "train.on_nonfinite",
}  # fmt: skip
"""What a resumed run may do otherwise; anything else would make it another run."""


@dataclass(frozen=True)
class Estimate:
    """What a run would cost, from three real steps of it."""

    parameters: int
    tokens_per_step: int
    training_tokens: int
    """In the training split."""
    epochs: float
    """How often the run reads the training split."""
    seconds_per_step: float
    evaluation_seconds: float
    total_seconds: float
    """Steps and evaluations together; the samples written between them are left out."""
    peak_memory_bytes: int | None
    """Of the process or the accelerator; None where the system does not tell."""
    run_folder_bytes: int
    free_disk_bytes: int


def start_run(
    preset: str,
    overrides: Overrides,
    workspace: Workspace,
    out: Path | None,
) -> Trainer:
    """Prepares the data and a new run folder.

    Raises:
        MinigptError: in the preset, the data, or the folder.
    """
    config, dataset = _config_and_data(preset, overrides, workspace)
    trainer = Trainer(config, dataset, None)  # refuses a text that is too short
    if dataset.metadata.val_tokens < 2:  # better now than at the first evaluation
        raise CorpusError(
            f"{dataset.metadata.corpus}: the validation text has {dataset.metadata.val_tokens} "
            "tokens and needs at least 2; give a longer text, or a larger share of it, as in "
            "--set data.val_fraction=0.2"
        )
    trainer.folder = new_run(_run_name(Path(preset)), out)
    return trainer


def resume_run(
    folder: RunFolder,
    overrides: Overrides,
    workspace: Workspace,
) -> Trainer:
    """Takes up a run where it was last saved.

    Raises:
        CheckpointError: there is nothing to resume, or an override would make it another run.
        MinigptError: in the overrides or the data.
    """
    if not folder.has(folder.state):
        raise CheckpointError(
            f"{folder.path}: nothing to resume, it has no {folder.state.name}; "
            "minigpt train starts a new run"
        )
    tables = read_toml(folder.config)
    before = saved_run(folder.state).config
    after = resolve_machine(resolve(tables, overrides, str(folder.config)))
    changed = [
        f"{name} was {old}, now {new}"
        for name, (old, new) in differences(before, after).items()
        if name not in RESUMABLE_SETTINGS
    ]
    if changed:
        raise CheckpointError(
            f"{folder.path}: a resumed run keeps its settings ({'; '.join(changed)}); "
            "leave them out, or start a new run"
        )
    dataset = workspace.dataset(after.data)
    trainer = Trainer(after, dataset, folder)
    trainer.resume()
    if trainer.state.step >= after.train.max_iters:
        raise CheckpointError(
            f"{folder.path}: already finished, at step {trainer.state.step}; to train on, "
            "raise --max-iters"
        )
    return trainer


def estimate_run(
    preset: str,
    overrides: Overrides,
    workspace: Workspace,
    out: Path | None,
) -> tuple[RunConfig, Estimate]:
    """Takes three steps of a run and keeps nothing.

    Raises:
        MinigptError: in the preset or the data.
    """
    config, dataset = _config_and_data(preset, overrides, workspace)
    trainer = Trainer(config, dataset, None)
    _seconds_of_step(trainer)  # the first step also allocates
    step_seconds = min(_seconds_of_step(trainer) for _ in range(_ESTIMATED_STEPS - 1))
    train = config.train
    read = min(dataset.metadata.val_tokens, train.eval_tokens)
    probe = min(read, 16 * config.model.block_size)
    for _ in range(2):  # the first pass also allocates
        started = time.perf_counter()
        evaluate(trainer.model, dataset.tokenizer, dataset.tokens("val"), probe)
        evaluation_seconds = (time.perf_counter() - started) * read / probe
    evaluations = -(-train.max_iters // train.eval_interval)
    weights = sum(p.numel() * 4 for p in trainer.model.parameters())
    state = sum(t.numel() * t.element_size() for t in trainer.optimizer.state_tensors().values())
    return config, Estimate(
        parameters=weights // 4,
        tokens_per_step=trainer.tokens_per_step,
        training_tokens=dataset.metadata.train_tokens,
        epochs=trainer.tokens_per_step * train.max_iters / dataset.metadata.train_tokens,
        seconds_per_step=step_seconds,
        evaluation_seconds=evaluation_seconds,
        total_seconds=step_seconds * train.max_iters + evaluation_seconds * evaluations,
        peak_memory_bytes=_peak_memory(trainer.device),
        run_folder_bytes=2 * weights + state,
        free_disk_bytes=shutil.disk_usage(_existing(out or Path())).free,
    )


def resolve_machine(config: RunConfig) -> RunConfig:
    """The same configuration with `auto` replaced by what this machine has and does best.

    What is resolved is what the run folder records, so that a resumed run computes alike.

    Raises:
        ConfigError: the device is not on this machine.
    """
    device = pick_device(config.train.device)
    resolved = {
        "device": str(device),
        "precision": dtype_name(pick_dtype(config.train.precision, device)),
        "threads": config.train.threads or torch.get_num_threads(),
        "compile": "on"
        if should_compile(config.train.compile, device, config.train.max_iters)
        else "off",
    }
    train = config.train.model_copy(update=resolved)
    return config.model_copy(update={"train": train})


def _config_and_data(
    preset: str,
    overrides: Overrides,
    workspace: Workspace,
) -> tuple[RunConfig, Dataset]:
    config = resolve_machine(load_run_config(preset, overrides))
    return config, workspace.dataset(config.data)


def _run_name(preset: Path) -> str:
    """The preset's name; a run's own `config.toml` stands for the run it lies in."""
    return preset.resolve().parent.name if preset.name == "config.toml" else preset.stem


def _seconds_of_step(trainer: Trainer) -> float:
    started = time.perf_counter()
    try:
        loss, _ = trainer.train_step()
    except NotFinite as trouble:
        raise TrainingError(f"{trouble}; try a smaller --learning-rate") from None
    loss.item()  # reading it waits for the device
    return time.perf_counter() - started


def _peak_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if os.name != "posix":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _existing(path: Path) -> Path:
    """The nearest folder above a path that exists."""
    path = path.resolve()
    return path if path.exists() else _existing(path.parent)
