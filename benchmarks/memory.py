"""Peak memory of real training steps against the plan: `python -m benchmarks.memory`.

Every case is a process of its own, one after another: it builds a preset's model, takes steps on
random tokens, and reports the most memory it ever had. `--cases small` measures only some.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from benchmarks.machine import keep, markdown
from minigpt_cli.config.loading import load_run_config
from minigpt_cli.config.schema import RunConfig
from minigpt_cli.data.dataset import Dataset
from minigpt_cli.training.learner import Learner
from minigpt_cli.training.planning.estimate import peak_memory
from minigpt_cli.training.planning.fitting import memory_here

_ONE: dict[str, object] = {"train.batch_size": 1, "train.grad_accum_steps": 1}
CASES: dict[str, tuple[str, str, int, int, dict[str, object]]] = {
    "tiny": ("tiny", "fp32", 65, 6, {}),
    "small": ("small", "fp32", 65, 6, {}),
    "small, bf16": ("small", "bf16", 65, 6, {}),
    "medium": ("medium", "fp32", 65, 6, {}),
    "medium, bf16": ("medium", "bf16", 65, 6, {}),
    "medium, batch 1, bf16": ("medium", "bf16", 65, 6, _ONE),
    "gpt2, batch 1": ("gpt2", "fp32", 50_257, 3, _ONE),
    "gpt2, batch 1, bf16": ("gpt2", "bf16", 50_257, 3, _ONE),
}
"""Preset, precision, vocabulary, steps and settings. Memory grows over the first few steps."""
TOKENS = 100_000


def config_of(case: str) -> tuple[RunConfig, int, int]:
    """A case's configuration, vocabulary and number of steps."""
    preset, precision, vocab_size, steps, settings = CASES[case]
    machine = {"train.device": "cpu", "train.precision": precision, "train.compile": "off"}
    return load_run_config(preset, {**settings, **machine}), vocab_size, steps


def measure(case: str) -> dict[str, Any]:
    """Takes the steps in this process; returns the losses and the peak in bytes."""
    config, vocab_size, steps = config_of(case)
    tokens = np.random.default_rng(0).integers(0, vocab_size, TOKENS).astype(np.uint16)
    dataset = SimpleNamespace(
        tokenizer=SimpleNamespace(vocab_size=vocab_size), tokens=lambda _: tokens, train_parts=()
    )
    learner = Learner(config, cast(Dataset, dataset))
    losses = [learner.take_step(step)[0].item() for step in range(steps)]
    return {"losses": losses, "peak": peak_memory(learner.device)}


def measured_apart(case: str) -> dict[str, Any]:
    """The same in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.memory", "--here", case]
    done = subprocess.run(command, check=True, capture_output=True, encoding="utf-8")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measures the cases, and keeps the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--here", choices=list(CASES), help="measure one case in this process")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options.here)))
        return
    rows, results = [], []
    for case in options.cases:
        config, vocab_size, steps = config_of(case)
        memory, found = memory_here(config, vocab_size), measured_apart(case)
        results.append({"case": case, "plan": asdict(memory), **found})
        planned, peak = memory.peak, found["peak"]
        tensors = memory.weights + memory.gradients + memory.optimizer_state
        sizes = [memory.parameters, tensors, memory.activations, memory.logits, planned, peak]
        shown = [f"{number / 1e6:,.1f}" for number in sizes]
        rows.append([case, str(steps), *shown, f"{planned / peak:.3f}"])
    columns = [
        "case", "steps", "M parameters", "weights, gradients, state, MB", "activations, MB",
        "logits, MB", "planned peak, MB", "measured peak, MB", "planned / measured",
    ]  # fmt: skip
    keep("memory", markdown(columns, rows), {"cases": results})


if __name__ == "__main__":
    main()
