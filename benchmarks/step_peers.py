"""A training step against other programs: `python -m benchmarks.step_peers`.

The baby GPT (6 layers, 6 heads, 384 wide, block 256, batch 16) on random tokens of a vocabulary of
65, without dropout or clipping: the forward and the backward pass and the optimizer's update. Each
contender is a process of its own; they take turns, and the first steps of each are not counted,
since some compile then.

`--nanogpt` names a checkout of nanoGPT, whose `model.py` is used as it is. `transformers` and
`accelerate` have to be installed beside minigpt. JAX may live in another environment, which
`--peers-python` names:

    git clone https://github.com/karpathy/nanoGPT
    python -m venv peers && peers/bin/pip install jax
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.machine import keep, markdown
from benchmarks.turns import Worker, interpreter, ratio, versions

BATCH, BLOCK, UNCOUNTED = 16, 256, 3
BASES = ("nanoGPT, fp32", "minigpt, classic, bf16, AdamW")


def contenders(nanogpt: Path, peers_python: str, threads: int) -> Iterator[Worker]:
    """Starts them, one after another."""
    here = sys.executable
    for family, optimizer, mode in (
        ("classic", "AdamW", "fp32"),
        ("classic", "AdamW", "bf16"),
        ("modern", "AdamW", "fp32"),
        ("modern", "AdamW", "bf16"),
        ("modern", "Muon", "bf16"),
    ):
        name = f"minigpt, {family}, {mode}, {optimizer}"
        arguments = [family, optimizer.lower(), mode]
        yield Worker(name, "train_minigpt", arguments, here, threads)
    for mode, how in (
        ("fp32", "fp32"),
        ("bf16", "bf16 by autocast"),
        ("compiled", "bf16 by autocast, compiled"),
    ):
        yield Worker(f"nanoGPT, {how}", "train_nanogpt", [nanogpt, mode], here, threads)
    for mode in ("fp32", "bf16"):
        name = f"transformers' Trainer, GPT-2, {mode}"
        yield Worker(name, "train_transformers", [mode], here, threads)
    for mode in ("fp32", "bf16"):
        yield Worker(f"JAX, {mode}", "train_jax", [mode], peers_python, threads)


def table(workers: list[Worker]) -> str:
    """Medians over all counted steps."""
    seconds = {worker.name: worker.median("step", "seconds") for worker in workers}
    speeds = {name: BATCH * BLOCK / took for name, took in seconds.items() if took}
    rows = []
    for worker in workers:
        speed = speeds.get(worker.name)
        ratios = [ratio(speed, speeds.get(base)) for base in BASES]
        rows.append([worker.name, f"{speed:,.0f}" if speed else "-", *ratios])
    return markdown(["training step", "tokens/s", *(f"of {base}" for base in BASES)], rows)


def main() -> None:
    """Runs the contenders in turn and keeps the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--nanogpt", type=Path, default=Path("nanoGPT"), help="its checkout")
    parser.add_argument(
        "--peers-python", type=interpreter, default=sys.executable, help="where JAX is"
    )
    options = parser.parse_args()
    with ExitStack() as running:
        workers = []
        for worker in contenders(options.nanogpt.resolve(), options.peers_python, options.threads):
            workers.append(running.enter_context(worker))
            for _ in range(UNCOUNTED):
                worker.take_turn("step", {}, timed=False)
        for _ in range(options.rounds):
            for worker in workers:
                worker.take_turn("step", {})
    text = f"{table(workers)}\n\n{options.threads} threads each. {versions(workers)}"
    seconds = {
        worker.name: [turn["seconds"] for turn in worker.turns.get("step", [])]
        for worker in workers
    }
    keep("step_peers", text, {"threads": options.threads, "seconds": seconds})


if __name__ == "__main__":
    main()
