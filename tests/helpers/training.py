"""Small training runs that tests start, stop, resume and compare."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch

from minigpt_cli.config.loading import parse_override, resolve
from minigpt_cli.config.schema import RunConfig
from minigpt_cli.data.dataset import Dataset
from minigpt_cli.runs.checkpoint import load_checkpoint
from minigpt_cli.runs.folder import RunFolder
from minigpt_cli.runs.metrics import EvaluationRow, StepRow
from minigpt_cli.runs.run import Run
from minigpt_cli.runs.writer import RunWriter
from minigpt_cli.training.learner import Learner
from minigpt_cli.training.reporter import Reporter, TrainResult
from minigpt_cli.training.trainer import Trainer

MAX_ITERS, EVAL_INTERVAL = 12, 5
TIMED = ("tokens_per_second", "elapsed", "mfu", "step_seconds")
"""What a clock has a part in."""


def small_config(*overrides: str) -> RunConfig:
    """Dropout, accumulation, clipping, a schedule that moves, averages: all that could be lost."""
    tables: dict[str, Any] = {
        "model": {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 8, "dropout": 0.2},
        "optimizer": {"warmup_iters": 3, "grad_clip": 1.0, "ema_decay": 0.8},
        "train": {
            "max_iters": MAX_ITERS, "eval_interval": EVAL_INTERVAL, "log_interval": 3,
            "batch_size": 4, "grad_accum_steps": 2, "sample_tokens": 0, "precision": "fp32",
            "device": "cpu", "compile": "off", "seed": 7,
        },
    }  # fmt: skip
    return resolve(tables, dict(map(parse_override, overrides)), "")


class Watcher(Reporter):
    """Keeps what it is told, and calls `after_step` with each step's number."""

    def __init__(self, after_step: Callable[[int], None] = lambda _: None) -> None:
        self.after_step = after_step
        self.steps: list[StepRow] = []
        self.evaluations: list[EvaluationRow] = []
        self.samples: list[str] = []
        self.notes: list[str] = []

    def stepped(self, row: StepRow) -> None:
        self.steps.append(row)
        self.after_step(row.step)

    def evaluated(self, row: EvaluationRow) -> None:
        self.evaluations.append(row)

    def sampled(self, text: str) -> None:
        self.samples.append(text)

    def noted(self, message: str) -> None:
        self.notes.append(message)


class Crash(Exception):
    """Stands for a power cut."""


def new_trainer(config: RunConfig, dataset: Dataset, folder: RunFolder | None = None) -> Trainer:
    """A trainer of a new run that is not locked, by default in a folder beside the dataset's."""
    if folder is None:
        folder = RunFolder(Path(tempfile.mkdtemp(dir=dataset.folder.parent)))
    return Trainer(Learner(config, dataset), RunWriter(Run(folder)))


def train(config: RunConfig, dataset: Dataset, folder: RunFolder | None = None) -> Trainer:
    trainer = new_trainer(config, dataset, folder)
    watcher = Watcher()
    assert trainer.fit(watcher).finished
    assert watcher.notes == []
    return trainer


def train_until(
    stop: int, how: Literal["asked", "crash"], config: RunConfig, dataset: Dataset, run: RunFolder
) -> TrainResult | None:
    trainer = new_trainer(config, dataset, run)

    def at_stop(step: int) -> None:
        if step == stop and how == "crash":
            raise Crash
        trainer.stop_requested = step == stop

    try:
        return trainer.fit(Watcher(at_stop))
    except Crash:
        return None


def resumed(config: RunConfig, dataset: Dataset, run: RunFolder) -> Trainer:
    trainer = new_trainer(config, dataset, run)
    trainer.restore()
    return trainer


def rows(folder: RunFolder) -> list[dict[str, Any]]:
    """The metrics, without what a clock had a part in and without what machines were there."""
    lines = folder.metrics.read_text(encoding="utf-8").splitlines()
    found = [{k: v for k, v in json.loads(line).items() if k not in TIMED} for line in lines]
    return [row for row in found if row["type"] != "machine"]


def differences(one: Trainer, other: Trainer, files: bool = True) -> list[str]:
    """The names of everything that differs: memory and, with `files`, metrics and checkpoint."""
    found = []
    us, them = one.learner, other.learner
    for ours, theirs in (
        (us.model.state_dict(), them.model.state_dict()),
        (us.optimizer.state_tensors(), them.optimizer.state_tensors()),
    ):
        names = sorted(ours.keys() | theirs.keys())
        found += [
            name for name in names
            if name not in ours or name not in theirs or not torch.equal(ours[name], theirs[name])
        ]  # fmt: skip
    mine, yours = asdict(one.state), asdict(other.state)
    found += [name for name in mine if name not in TIMED and mine[name] != yours[name]]
    if files:
        if rows(one.folder) != rows(other.folder):
            found.append("metrics")
        first, second = (load_checkpoint(t.folder.checkpoint) for t in (one, other))
        if first.metadata != second.metadata:
            found.append("checkpoint facts")
        weights = second.model.state_dict()
        if not all(torch.equal(w, weights[n]) for n, w in first.model.state_dict().items()):
            found.append("checkpoint weights")
    return found
