"""Training in several processes: `python -m benchmarks.distributed`.

For one and two processes, and every way to share the work: how long a step takes, how long until
the first one is done, and the loss of the last, which shows that all compute the same. `ddp` sums
gradients by hooks; `DistributedDataParallel` is PyTorch's wrapper, measured to decide between the
two. With `--before FOLDER`, one process is compared with another checkout of minigpt, in turns.

On a CPU the processes share the cores, so two are not expected to be faster than one.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import keep, markdown

ENGINES = [(1, "one process"), (2, "ddp"), (2, "DistributedDataParallel"), (2, "fsdp")]
ROOT = Path(__file__).parents[1]
WORDS = ["ferryman", "counts", "paper", "boats", "while", "lamplighters", "mend", "every", "bridge"]

# Also run by earlier versions, which know nothing of groups and strategies.
RANK = """
import json, statistics, sys, time
started = time.perf_counter()
from pathlib import Path
text, preset, engine, steps = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
from contextlib import nullcontext
from minigpt_cli.config.loading import load_run_config
from minigpt_cli.data.workspace import Workspace
from minigpt_cli.training.learner import Learner
from minigpt_cli.training.setup import resolve_machine
overrides = {
    "data.corpus": str(text), "train.max_iters": steps, "train.compile": "off", "train.threads": 1,
    "train.grad_accum_steps": 1 if engine == "before" or engine == "after" else 2,
}
if engine not in ("before", "after"):
    overrides["distributed.strategy"] = "fsdp" if engine == "fsdp" else "ddp"
dataset_of = lambda config: Workspace(text.parent / "data").dataset(config.data)
config = resolve_machine(load_run_config(preset, overrides))
if engine in ("before", "after"):
    connection = nullcontext()
else:
    from minigpt_cli.training.parallel.distributed import connected
    connection = connected()
with connection as group:
    dataset = dataset_of(config)
    if group is None:
        learner = Learner(config, dataset)
    else:
        group.join(60)
        learner = Learner(config, dataset, group=group)
    if engine == "DistributedDataParallel":
        from benchmarks.distributed import with_pytorchs_wrapper
        with_pytorchs_wrapper(learner)
    seconds = []
    for step in range(steps):
        begun = time.perf_counter()
        loss = learner.take_step(step)[0].item()
        seconds.append(time.perf_counter() - begun)
        if step == 0:
            until_first = time.perf_counter() - started
    if engine == "DistributedDataParallel":
        loss /= 2  # the passes' losses were doubled, because it halves their sum
    if group is None or group.is_first:
        print(json.dumps({
            "loss": loss, "step": statistics.median(seconds[2:]), "until_first": until_first,
            "tokens": learner.tokens_per_step, "cpu": time.process_time(),
        }))
"""


def with_pytorchs_wrapper(learner: Any) -> None:
    """Lets `DistributedDataParallel` sum a learner's gradients instead of our hooks."""
    from dataclasses import replace

    from torch.nn.parallel import DistributedDataParallel

    from minigpt_cli.training.parallel.replication import Replicated

    model = learner.model
    for parameter in model.parameters():
        parameter._post_accumulate_grad_hooks = None  # noqa: SLF001
    wrapper = DistributedDataParallel(model, gradient_as_bucket_view=True)

    class Wrapped(Replicated):
        def begin_backward(self, is_last: bool) -> None:
            wrapper.require_backward_grad_sync = is_last

    learner.model, learner.strategy = wrapper, Wrapped(learner.group)
    # Passes weigh more, because it divides by the number of processes.
    passes = learner._passes  # noqa: SLF001
    passes[:] = [replace(each, weight=each.weight / learner.group.size) for each in passes]


def run(checkout: Path, text: Path, preset: str, processes: int, engine: str, steps: int) -> Any:
    """Starts the processes, and returns what rank 0 measured."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ranks = []
    for rank in range(processes):
        own = {
            "RANK": rank, "WORLD_SIZE": processes, "LOCAL_RANK": rank, "MASTER_PORT": port,
            "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": 1,
        }  # fmt: skip
        env = {**os.environ, "PYTHONPATH": str(checkout)}
        if processes > 1:
            env |= {name: str(value) for name, value in own.items()}
        command = [sys.executable, "-c", RANK, str(text), preset, engine, str(steps)]
        ranks.append(
            subprocess.Popen(
                command, cwd=checkout, env=env, stdout=subprocess.PIPE, encoding="utf-8"
            )
        )
    outputs = [rank.communicate()[0] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        raise SystemExit(f"{engine} with {processes} processes failed")
    return json.loads(outputs[0].splitlines()[-1])


def main() -> None:
    """Measures, prints the table and keeps it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--before", type=Path, help="another checkout, to compare one process with")
    given = parser.parse_args()
    numbers: dict[str, Any] = {"preset": given.preset, "steps": given.steps}
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "text.txt")
        text.write_text(" ".join(WORDS[i * i % 97 % len(WORDS)] for i in range(60_000)))
        measured: dict[str, list[Any]] = {engine: [] for _, engine in ENGINES}
        for _ in range(given.repeats):  # in turns, so that a busy minute hits all
            for processes, engine in ENGINES:
                found = run(ROOT, text, given.preset, processes, engine, given.steps)
                measured[engine].append(found)
        numbers["engines"] = measured
        turns: dict[str, list[Any]] = {"before": [], "after": []}
        for _ in range(given.repeats if given.before else 0):
            for name, checkout in (("before", given.before.resolve()), ("after", ROOT)):
                turns[name].append(run(checkout, text, given.preset, 1, name, given.steps))
        numbers["one_process"] = turns
    rows = []
    for processes, engine in ENGINES:
        best = {key: min(each[key] for each in measured[engine]) for key in measured[engine][0]}
        rows.append([
            f"{engine}, {processes}", f"{best['step'] * 1000:.1f} ms",
            f"{best['tokens'] / best['step']:,.0f}", f"{best['until_first']:.1f} s",
            f"{best['cpu']:.1f} s", f"{best['loss']:.6f}",
        ])  # fmt: skip
    columns = ["engine, processes", "step", "tokens/s", "first step after", "CPU of rank 0"]
    table = markdown([*columns, "last loss"], rows)
    if given.before:
        old, new = (min(each["step"] for each in turns[name]) for name in ("before", "after"))
        table += (
            f"\n\nOne process, {given.preset}, accumulation off: {old * 1000:.1f} ms a "
            f"step before, {new * 1000:.1f} ms after ({new / old - 1:+.1%})."
        )
    keep("distributed", table, numbers)


if __name__ == "__main__":
    main()
