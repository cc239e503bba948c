"""Loss and training time of the presets: `python -m benchmarks.train`.

Every run is a whole command in a process of its own, timed from start to exit, with nothing
compiled in advance. The baseline is the preset `nanogpt`. Runs of the same seed follow each other,
so that changes of the machine's speed affect all of them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import keep, markdown
from minigpt_cli.data.workspace import Workspace
from minigpt_cli.evaluation import predict_tokens
from minigpt_cli.runs.checkpoint import load_checkpoint

BASELINE = "nanogpt"
TARGET = 1.88
# The shortest way to nanoGPT's loss: a smaller `small` with short windows and few steps.
SPRINT = ["--preset", "small", "--max-iters", "300", "--learning-rate", "0.04",
          "--set", "model.n_layer=2", "--set", "model.block_size=64",
          "--set", "train.batch_size=16", "--set", "train.eval_interval=300"]  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One training run, as a user sees it."""

    name: str
    seed: int
    wall: float
    result: dict[str, Any]
    metrics: list[dict[str, Any]]
    folder: Path

    @cached_property
    def nats(self) -> Tensor:
        """The saved model's loss on each token of the validation split, (N,)."""
        return predicted(self.folder, 0.0)

    @cached_property
    def sliding(self) -> float:
        """Its mean if at least three quarters of a window are read before each token."""
        return predicted(self.folder, 0.75).mean().item()

    @property
    def final_loss(self) -> float:
        losses: list[float] = [row["val_loss"] for row in self.evaluations]
        return losses[-1]

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        return [row for row in self.metrics if row["type"] == "evaluation"]

    def seconds_to(self, loss: float) -> float | None:
        """Seconds from the first step to the first evaluation at or below a loss."""
        for row in self.evaluations:
            if row["val_loss"] <= loss:
                elapsed: float = row["elapsed"]
                return elapsed
        return None


def train(name: str, options: list[str], seed: int, folder: Path) -> Run:
    """Runs one command and collects its results."""
    out = folder / f"{name}-{seed}"
    command = [sys.executable, "-m", "minigpt_cli", "train", *options]
    command += ["--seed", str(seed), "--out", str(out), "--json"]
    started = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    wall = time.perf_counter() - started
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return Run(name, seed, wall, json.loads(done.stdout), metrics, out)


def predicted(run: Path, overlap: float) -> Tensor:
    """Scores the model that a run saved in windows that overlap by a share of their length."""
    checkpoint = load_checkpoint(run / "checkpoint.safetensors")
    data = Path(os.environ.get("MINIGPT_DATA", "data"))
    tokens = Workspace(data).dataset(checkpoint.metadata.data).tokens("val")
    context = max(1, int(overlap * checkpoint.model.config.block_size))
    passes = predict_tokens(checkpoint.model, tokens, context=context)
    return torch.cat([each.nats.double() for each in passes])


def together(runs: list[Run]) -> float | None:
    """The loss of the mean of several models' probabilities, an ensemble of them."""
    if len(runs) == 1:
        return None
    return -torch.stack([run.nats for run in runs]).neg().exp().mean(0).log().mean().item()


def median(values: list[float]) -> float:
    """The median, which outliers do not move."""
    return statistics.median(values)


def table(runs: list[Run], names: list[str]) -> str:
    """Medians per preset, and their ratio to the baseline."""
    base = median([run.wall for run in runs if run.name == BASELINE])
    rows = []
    for name in names:
        mine = [run for run in runs if run.name == name]
        reached = [seconds for run in mine if (seconds := run.seconds_to(TARGET)) is not None]
        rows.append(
            [
                name,
                f"{median([run.final_loss for run in mine]):.4f}",
                f"{median([run.result['best_val_loss'] for run in mine]):.4f}",
                f"{median([run.sliding for run in mine]):.4f}",
                "-" if (loss := together(mine)) is None else f"{loss:.4f}",
                f"{median([run.result['step_seconds'] for run in mine]):.1f}",
                f"{median([run.wall for run in mine]):.1f}",
                f"{median([run.wall for run in mine]) / base:.2f}",
                f"{median(reached):.1f}" if len(reached) == len(mine) else "-",
                f"{median([run.result['tokens_per_second'] for run in mine]):,.0f}",
                f"{median([run.result['mfu'] for run in mine]):.0%}",
            ]
        )
    columns = [
        "preset", "final loss", "best loss", "sliding", "together", "seconds of steps",
        "wall seconds", f"of {BASELINE}'s wall", f"seconds to {TARGET}", "tokens/s", "mfu",
    ]  # fmt: skip
    return markdown(columns, rows)


def main() -> None:
    """Runs every preset with every seed, in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="*", default=["small", "speedrun", "best"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[3, 4, 5])
    arguments = parser.parse_args()
    commands = {BASELINE: ["--preset", BASELINE], "sprint": SPRINT}
    commands |= {preset: ["--preset", preset] for preset in arguments.presets}
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            for name, options in commands.items():
                runs.append(train(name, options, seed, Path(folder)))
                print(f"{name} seed {seed}: {runs[-1].final_loss:.4f}, {runs[-1].wall:.1f} s")
        # Only now, so that this process computes nothing while others are timed.
        text = table(runs, list(commands))
    results = [
        {"name": r.name, "seed": r.seed, "wall": r.wall, "sliding": r.sliding, **r.result}
        | {"evaluations": r.evaluations}
        for r in runs
    ]
    text += (
        f"\n\nMedians of seeds {arguments.seeds}. sliding: of the best model, with windows "
        "that overlap by three quarters. together: of the mean probabilities of all seeds' best "
        f"models; both computed in fp32. sprint: `minigpt train {' '.join(SPRINT)}`."
    )
    keep("train", text, {"seeds": arguments.seeds, "runs": results})


if __name__ == "__main__":
    main()
