"""Several processes on this machine, started as torchrun would start them, and what they do."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from minigpt_cli.data.dataset import Dataset, find_prepared
from minigpt_cli.runs.folder import RunFolder
from minigpt_cli.runs.run import Run
from minigpt_cli.runs.writer import NoWriter, RunWriter, Writer
from minigpt_cli.training import trainer as trainer_module
from minigpt_cli.training.learner import Learner
from minigpt_cli.training.parallel.distributed import ALONE, Group, connected
from minigpt_cli.training.reporter import Reporter
from minigpt_cli.training.trainer import Trainer
from tests.helpers.programs import PATIENCE
from tests.helpers.training import small_config


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """The variables that torchrun sets, on one machine."""
    own = {
        "RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1,
        "GLOO_SOCKET_IFNAME": "lo", "TORCH_CPP_LOG_LEVEL": "FATAL",
    }  # fmt: skip
    return {name: str(value) for name, value in own.items()}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def train_on(size: int, folder: Path, dataset: Dataset, jobs: Sequence[dict[str, Any]]) -> None:
    """Runs jobs of `train_job`, one after another, in one group of processes."""
    task = json.dumps({"size": size, "data": str(dataset.folder), "jobs": list(jobs)})
    ranks = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.ranks", task],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    try:
        _, err = ranks.communicate(timeout=PATIENCE)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(ranks.pid, signal.SIGKILL)
    assert ranks.returncode == 0, err


def train_job(
    dataset: Dataset,
    folder: Path,
    settings: Sequence[str],
    *,
    until: int | None = None,
    nan_at: int | None = None,
    group: Group = ALONE,
) -> Trainer:
    """Trains a run, or goes on with it if it is there.

    Args:
        dataset: what to train on.
        folder: of the run.
        settings: overrides of `small_config`.
        until: the step after which to stop.
        nan_at: number of the window whose pass has a loss of NaN.
        group: the processes.
    """
    run = RunFolder(folder)
    if group.is_first:
        folder.mkdir(exist_ok=True)
    writer: Writer = RunWriter(Run(run)) if group.is_first else NoWriter(run)
    trainer = Trainer(Learner(small_config(*settings), dataset, group=group), writer)
    if nan_at is not None:
        break_loss(trainer.learner, nan_at)
    if group.first(lambda: run.has(run.state)):
        trainer.restore()

    class Stop(Reporter):
        def stepped(self, row: Any) -> None:
            # On the last rank alone: that all stop is what they agree on.
            if row.step == until and group.rank == group.size - 1:
                trainer.stop_requested = 15

    trainer.fit(Stop())
    return trainer


def break_loss(learner: Learner, window: int) -> None:
    """Makes the loss of the pass with this window, counted over the run, NaN."""
    windows, current = learner.batches.windows, [0, 0]

    def recorded(first: int, count: int) -> tuple[Tensor, Tensor]:
        current[:] = first, count
        return windows(first, count)

    def spoil(_: Any, inputs: tuple[Any, ...], loss: Tensor) -> Tensor:
        hit = learner.model.training and current[0] <= window < current[0] + current[1]
        return loss * math.nan if hit else loss

    learner.batches.windows = recorded  # type: ignore[method-assign]
    learner.model.register_forward_hook(spoil)


def main() -> None:
    """Forks into ranks, so that PyTorch is imported once."""
    task = json.loads(sys.argv[1])
    trainer_module.matmul_flops = lambda *_: 1e12  # type: ignore[attr-defined]
    if any("fsdp" in setting for job in task["jobs"] for setting in job["settings"][-1:]):
        from minigpt_cli.training.parallel import sharding  # noqa: F401
    port, children = free_port(), []
    for rank in range(task["size"]):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.environ.update(environment(rank, task["size"], port))
                _work(task)
                status = 0
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(status)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    sys.exit(any(statuses))


def _work(task: dict[str, Any]) -> None:
    data = Path(task["data"])
    dataset = find_prepared(data.parents[1], data.name)
    assert dataset is not None
    with connected() as group:
        group.join(60)
        for job in task["jobs"]:
            train_job(dataset, Path(job.pop("folder")), job.pop("settings"), group=group, **job)


if __name__ == "__main__":
    main()
