"""What a run would cost, measured on three real steps of it."""

import os
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from minigpt_cli.config.schema import RunConfig
from minigpt_cli.errors import TrainingError
from minigpt_cli.evaluation import evaluate
from minigpt_cli.language import _
from minigpt_cli.training.learner import Learner
from minigpt_cli.training.lora import parameter_counts
from minigpt_cli.training.planning.fitting import memory_here
from minigpt_cli.training.planning.memory import Memory
from minigpt_cli.training.schedule import evaluates
from minigpt_cli.training.setup import TrainRequest
from minigpt_cli.training.stability import NotFinite

_STEPS = 3


@dataclass(frozen=True)
class Estimate:
    """What a run would cost."""

    parameters: int
    tokens_per_step: int
    training_tokens: int
    """Tokens in the training split."""
    epochs: float
    """How often the run reads the training split."""
    seconds_per_step: float
    evaluation_seconds: float
    total_seconds: float
    """Steps and evaluations together, without the samples generated between them."""
    peak_memory_bytes: int | None
    """Of the process or the accelerator; None where the system does not report it."""
    memory: Memory
    """By kind, computed from the sizes alone."""
    run_folder_bytes: int
    free_disk_bytes: int


def estimate(request: TrainRequest) -> tuple[RunConfig, Estimate]:
    """Takes three steps of a run and keeps nothing.

    Returns:
        The configuration, resolved for this machine, and the estimate.

    Raises:
        MinigptError: in the preset or the data, or the first steps failed.
    """
    learner = request.learner()
    config, metadata = learner.config, learner.dataset.metadata
    _, *others = [_seconds_of_step(learner, step) for step in range(_STEPS)]
    step_seconds = min(others)  # the first also allocates
    evaluation_seconds = _seconds_of_evaluation(learner)
    train = config.train
    evaluations = sum(evaluates(train, step) for step in range(1, train.max_iters + 1))
    weights = sum(p.numel() * 4 for p in learner.model.parameters())
    state = sum(t.numel() * t.element_size() for t in learner.optimizer.state_tensors().values())
    return config, Estimate(
        parameters=parameter_counts(learner.model)[0],
        tokens_per_step=learner.tokens_per_step,
        training_tokens=metadata.train_tokens,
        epochs=learner.tokens_per_step * train.max_iters / metadata.train_tokens,
        seconds_per_step=step_seconds,
        evaluation_seconds=evaluation_seconds,
        total_seconds=step_seconds * train.max_iters + evaluation_seconds * evaluations,
        peak_memory_bytes=peak_memory(learner.device),
        memory=memory_here(config, learner.model.vocab_size),
        run_folder_bytes=2 * weights + state,
        free_disk_bytes=shutil.disk_usage(_existing(request.out or Path())).free,
    )


def _seconds_of_step(learner: Learner, step: int) -> float:
    started = time.perf_counter()
    try:
        loss, _norm = learner.take_step(step)
    except NotFinite as problem:
        raise TrainingError(
            _("{problem}; try a smaller optimizer.learning_rate").format(problem=problem),
            settings=("optimizer.learning_rate",),
        ) from None
    loss.item()  # waits for the device
    return time.perf_counter() - started


def _seconds_of_evaluation(learner: Learner) -> float:
    """Extrapolated from a few windows."""
    dataset, config = learner.dataset, learner.config
    tokens = min(dataset.metadata.val_tokens, config.train.eval_tokens)
    probe = min(tokens, 16 * config.model.block_size)
    seconds = 0.0
    for _pass in range(2):  # the first pass also allocates
        started = time.perf_counter()
        evaluate(learner.model, dataset.tokenizer, dataset.tokens("val"), probe)
        seconds = time.perf_counter() - started
    return seconds * tokens / probe


def peak_memory(device: torch.device) -> int | None:
    """The most bytes that this process, or the accelerator, ever had; None where unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Linux counts a process's peak of `getrusage` from that of the process which started it.
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if os.name != "posix":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _existing(path: Path) -> Path:
    """The nearest existing folder at or above a path."""
    path = path.resolve()
    return path if path.exists() else _existing(path.parent)
