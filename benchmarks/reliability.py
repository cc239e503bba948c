"""The cost of saving, and the memory of large texts: `python -m benchmarks.reliability`.

The cost of saving is measured on the preset `small`: one state per minute, and one state and one
checkpoint per evaluation. Peak memory is that of the whole process.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

from benchmarks.machine import keep, markdown
from minigpt_cli.runs.checkpoint import (
    checkpoint_file,
    load_checkpoint,
    read_tensors,
    write_tensors,
)

SAVES = 9
# Runs a command; prints its seconds and its peak resident memory in bytes.
MEASURED = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
subprocess.run([sys.executable, "-m", "minigpt_cli", *sys.argv[1:]], check=True,
               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
peak = peak if sys.platform == "darwin" else peak * 1024
print(json.dumps({"seconds": time.perf_counter() - started, "peak": peak}))
"""
EVALUATED = """
import json, sys
import numpy as np
from minigpt_cli.config.schema import ClassicConfig
from minigpt_cli.evaluation import evaluate
from minigpt_cli.model.gpt import GPT
from minigpt_cli.tokenizer.byte import ByteTokenizer
model = GPT(ClassicConfig(n_layer=1, n_head=2, n_embd=16, block_size=16), 256).initialize()
tokens, tokenizer, resident = np.arange(100, dtype=np.uint16), ByteTokenizer(), []
for number in range(1, 10_001):
    evaluate(model, tokenizer, tokens)
    if number % 1000 == 0:
        resident.append(int(open("/proc/self/statm").read().split()[1]) * 4096)
print(json.dumps(resident))
"""


def write_text(path: Path, size: int, words: int = 300_000) -> None:
    """Writes a made-up text that looks like English with some Chinese, of `words` different words.

    As in any language, few words are frequent and most are rare.
    """
    chance = random.Random(0)
    syllables = [a + b for a in "bdghklmnprstvw" for b in ("a", "e", "i", "o", "u", "ea", "oo")]
    made = ["".join(chance.choices(syllables, k=chance.randint(1, 5))) for _ in range(words)]
    chinese = [
        "".join(chr(0x4E00 + chance.randrange(3000)) for _ in range(chance.randint(2, 8)))
        for _ in range(words // 10)
    ]
    lines = []
    for _ in range(200_000):
        drawn = [made[int(words ** chance.random()) - 1] for _ in range(10)]
        lines.append(f"{' '.join(drawn)}, {chance.choice(chinese)}。\n")
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < size:  # shuffling lines is faster than making new ones
            chance.shuffle(lines)
            file.write("".join(lines))


def measured(*command: str) -> dict[str, float]:
    """Seconds and peak memory of one command."""
    call = [sys.executable, "-c", MEASURED, *command]
    found: dict[str, float] = json.loads(subprocess.run(call, check=True, stdout=PIPE).stdout)
    return found


def evaluating() -> list[int]:
    """Resident memory, in bytes, after every 1,000 of 10,000 evaluations of a tiny model."""
    call = [sys.executable, "-c", EVALUATED]
    resident: list[int] = json.loads(subprocess.run(call, check=True, stdout=PIPE).stdout)
    return resident


def seconds_of(action: Callable[[], object]) -> float:
    """The median time of several calls."""
    times = []
    for _ in range(SAVES):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def saving(folder: Path, text: Path) -> tuple[str, dict[str, Any]]:
    """Trains `small` briefly and times writing its two files."""
    run = folder / "run"
    options = ["--preset", "small", "--data", str(text), "--data-dir", str(folder), "--json"]
    options += ["--max-iters", "200", "--set", "train.eval_interval=200"]
    command = [sys.executable, "-m", "minigpt_cli", "train", *options, "--out", str(run)]
    done = json.loads(subprocess.run(command, check=True, stdout=PIPE, stderr=DEVNULL).stdout)
    step = done["step_seconds"] / done["step"]
    state, checkpoint = run / "state.safetensors", run / "checkpoint.safetensors"
    tensors, metadata = read_tensors(state)
    loaded = load_checkpoint(checkpoint)
    state_seconds = seconds_of(lambda: write_tensors(state, tensors, metadata))
    model = checkpoint_file(checkpoint, loaded.model, loaded.metadata)
    model_seconds = seconds_of(model.write)
    each_minute = state_seconds / 60
    at_evaluations = (state_seconds + model_seconds) / (500 * step)
    files = {"a state": (state, state_seconds), "a checkpoint": (checkpoint, model_seconds)}
    rows = [
        [name, f"{path.stat().st_size / 1e6:.1f} MB", f"{seconds * 1e3:.0f} ms"]
        for name, (path, seconds) in files.items()
    ]
    table = markdown(["saving, preset small", "size", "time (median)"], rows)
    table += (
        f"\n\nA step takes {step * 1e3:.1f} ms. A state every minute costs {each_minute:.2%} of a "
        f"run; a state and a checkpoint at every evaluation (500 steps) {at_evaluations:.2%}; "
        f"together {each_minute + at_evaluations:.2%}."
    )
    numbers = {"step": step, "state": state_seconds, "checkpoint": model_seconds}
    return table, numbers


def tokenizing(folder: Path, sizes: dict[str, float]) -> tuple[str, list[dict[str, Any]]]:
    """Peak memory and time by tokenizer kind and text size in GB."""
    rows, numbers = [], []
    for kind, gigabytes in sizes.items():
        text = folder / f"{gigabytes}.txt"
        if not text.exists():
            write_text(text, int(gigabytes * 1e9))
        one = measured("tokenize", str(text), "--kind", kind, "--data-dir", str(folder / "data"))
        rows.append(
            [kind, f"{gigabytes} GB", f"{one['peak'] / 1e6:.0f} MB", f"{one['seconds']:.0f} s"]
        )
        numbers.append({"kind": kind, "bytes": text.stat().st_size, **one})
        print(rows[-1], flush=True)
    return markdown(["tokenizing", "text", "peak of memory", "time"], rows), numbers


def main() -> None:
    """Measures all three, the slow ones last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2, help="for char, byte and word")
    parser.add_argument("--kinds", nargs="*", default=["char", "byte", "word", "bpe"])
    arguments = parser.parse_args()
    sizes = {kind: 0.05 if kind == "bpe" else arguments.gigabytes for kind in arguments.kinds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_text(folder / "short.txt", 1_000_000, words=5000)
        saved, saving_numbers = saving(folder, folder / "short.txt")
        resident = evaluating()
        growth = (resident[-1] - resident[0]) / 1e6
        tokenized, tokenizing_numbers = tokenizing(folder, sizes)
    flat = f"From the 1,000th to the 10,000th evaluation a process grows by {growth:+.2f} MB."
    numbers = {
        "saving": saving_numbers, "tokenizing": tokenizing_numbers, "evaluating": resident
    }  # fmt: skip
    keep("reliability", f"{saved}\n\n{tokenized}\n\n{flat}", numbers)


if __name__ == "__main__":
    main()
