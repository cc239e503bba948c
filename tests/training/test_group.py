"""How processes agree before they train, with threads in their place."""

import os
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed import HashStore  # type: ignore[attr-defined]

from minigpt_cli.data.batches import BatchSampler
from minigpt_cli.data.dataset import Dataset
from minigpt_cli.data.workspace import Workspace
from minigpt_cli.errors import ConfigError, MinigptError, PeerLostError
from minigpt_cli.training.learner import Learner, passes_of
from minigpt_cli.training.parallel.agreement import (
    check_same_overrides,
    check_same_settings,
    for_these_processes,
    shared_dataset,
)
from minigpt_cli.training.parallel.distributed import ALONE, Group, Place, Ranks
from minigpt_cli.training.parallel.strategy import chosen, strategy_for
from tests.helpers.training import small_config


def in_threads(size: int, work: Callable[[Ranks], Any], machines: int = 1) -> list[Any]:
    """What `work` returns or raises for each rank; an error is told to the others."""
    store = HashStore()
    results: list[Any] = [None] * size
    each = size // machines

    def run(rank: int) -> None:
        ranks = Ranks(Place(rank, size, rank % each, each), store)
        try:
            results[rank] = work(ranks)
        except MinigptError as error:
            ranks.announce(error)
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def test_rank_0_decides_for_all() -> None:
    found = in_threads(3, lambda ranks: [ranks.first(lambda: [ranks.rank, "é"]) for _ in range(2)])
    assert found == [[[0, "é"], [0, "é"]]] * 3


def test_error_of_one_process_is_known_to_all() -> None:
    def work(ranks: Ranks) -> Any:
        if ranks.rank == 2:
            raise ConfigError("the disk is full", ("out",))
        # Nobody ever sets this: only the failure ends the wait.
        return ranks._get("nothing")

    first, second, third = in_threads(3, work)
    for lost in (first, second):
        assert type(lost) is PeerLostError
        assert str(lost) == "process 2 of 3: the disk is full"
        assert lost.settings == ("out",)
    assert type(third) is ConfigError


def test_different_settings_are_named() -> None:
    def work(ranks: Ranks) -> None:
        setting = f"train.batch_size={4 + ranks.rank}"
        check_same_settings(small_config(setting, f"data.corpus={ranks.rank}.txt"), ranks)
        ranks._get("nothing")

    first, second = in_threads(2, work)
    expected = "train.batch_size is 4 in process 0 and 5 in process 1; use the same command"
    assert str(second) == expected
    assert str(first) == f"process 1 of 2: {expected}"


def test_different_changes_to_a_run_are_named() -> None:
    def work(ranks: Ranks) -> None:
        own: dict[str, object] = {"train.patience": 2} if ranks.rank else {}
        check_same_overrides({"train.freeze": ("a",), "data.corpus": ranks.rank, **own}, ranks)
        ranks._get("nothing")

    first, second = in_threads(2, work)
    assert str(second) == (
        "process 1 changes train.patience otherwise than process 0; use the same command"
    )
    assert str(first) == f"process 1 of 2: {second}"


def test_equal_settings_pass() -> None:
    assert in_threads(2, lambda ranks: check_same_settings(small_config(), ranks)) == [None, None]


def test_text_is_prepared_once_on_each_machine(dataset: Dataset) -> None:
    made = []

    def work(ranks: Ranks) -> str:
        def make() -> Dataset:
            made.append(ranks.rank)
            return dataset

        workspace = Workspace(dataset.folder.parents[1])
        return shared_dataset(make, workspace, ranks).metadata.fingerprint

    assert in_threads(4, work, machines=2) == [dataset.metadata.fingerprint] * 4
    assert sorted(made) == [0, 2]


def test_another_text_on_another_machine_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    def work(ranks: Ranks) -> None:
        ranks.compare("text", f"text {ranks.rank}", lambda first: ConfigError(f"not {first}"))

    first, second = in_threads(2, work, machines=2)
    assert first is None
    assert str(second) == "not text 0"


TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "here", "MASTER_PORT": "1234"}


def test_place_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Place.from_environment() == Place()
    monkeypatch.setenv("RANK", "3")  # of something else
    assert Place.from_environment() == Place()
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert Place.from_environment() == Place(3, 4, 0, 1, "here", 1234)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert Place.from_environment() == Place(3, 4, 1, 2, "here", 1234)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("RANK", "4", "contradict"), ("WORLD_SIZE", "many", "must be numbers"),
     ("LOCAL_RANK", "1", "contradict")],
)  # fmt: skip
def test_impossible_places_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    for variable, number in {**TORCHRUN, name: value}.items():
        monkeypatch.setenv(variable, number)
    with pytest.raises(ConfigError, match=said):
        Place.from_environment()


def ranks(rank: int = 0, size: int = 2) -> Ranks:
    return Ranks(Place(rank, size, rank, size), HashStore())


def test_threads_are_the_cores_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minigpt_cli.training.parallel.distributed._cores", lambda: 7)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert ranks(size=2).threads() == 5  # as the user wants
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")  # which sets OMP_NUM_THREADS by itself
    assert ranks(size=2).threads() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert ranks(size=9).threads() == 1
    assert ALONE.threads() == 0  # to be measured


def test_every_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    cuda = torch.device("cuda")
    assert [ranks(rank).device(cuda) for rank in (0, 1)] == [
        torch.device(f"cuda:{i}") for i in (0, 1)
    ]
    assert ranks(1).device(torch.device("cpu")) == torch.device("cpu")
    assert ALONE.device(torch.device("cuda:1")) == torch.device("cuda:1")
    with pytest.raises(ConfigError, match=r"train\.device = cuda:1 is one GPU for 2 processes"):
        ranks().device(torch.device("cuda:1"))
    with pytest.raises(ConfigError, match="has 2 GPUs for 3 processes"):
        ranks(0, 3).device(cuda)


def test_what_one_process_recorded_suits_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minigpt_cli.training.parallel.distributed._cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    recorded = small_config("train.device=cuda:0", "train.threads=6")
    train = for_these_processes(recorded, {}, ranks(size=2)).train
    assert (train.device, train.threads) == ("cuda", 4)
    wanted = {"train.device": "cuda:0", "train.threads": 6}
    assert for_these_processes(recorded, wanted, ranks(size=2)) == recorded
    assert for_these_processes(recorded, {}, ALONE) == recorded
    few = small_config("train.threads=3")
    assert for_these_processes(few, {}, ranks(size=2)).train.threads == 3


def group(rank: int, size: int) -> Group:
    alone = Group()
    alone.rank, alone.size = rank, size
    return alone


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12), st.booleans())
def test_passes_share_out_every_window_once(
    batch_size: int, accumulation: int, size: int, in_lockstep: bool
) -> None:
    train = small_config(
        f"train.batch_size={batch_size}", f"train.grad_accum_steps={accumulation}"
    ).train
    windows = batch_size * accumulation
    if windows < size:
        with pytest.raises(ConfigError, match=f"{windows} sequences per step"):
            passes_of(group(0, size), train, in_lockstep)
        return
    passes = [passes_of(group(rank, size), train, in_lockstep) for rank in range(size)]
    real = [each for mine in passes for each in mine if each.weight != float("inf")]
    covered = [number for each in real for number in range(each.first, each.first + each.count)]
    assert covered == list(range(windows))
    assert all(each.count <= batch_size for each in real)
    assert sum(1 / each.weight for each in real) == pytest.approx(1)
    if in_lockstep:
        assert len({len(mine) for mine in passes}) == 1
    if accumulation % size == 0:  # the same passes as of one process
        assert [each.first for each in real] == list(range(0, windows, batch_size))


@pytest.mark.parametrize("sampling", ["random", "epochs"])
def test_windows_are_those_of_the_batches(dataset: Dataset, sampling: Any) -> None:
    batches = BatchSampler(dataset.tokens("train"), 3, 8, 7, sampling)
    both = [torch.cat(parts) for parts in zip(*(batches.batch(n) for n in range(4)), strict=True)]
    for first, last in pairwise([0, 3, 4, 5, 11, 12]):
        for found, whole in zip(batches.windows(first, last - first), both, strict=True):
            assert torch.equal(found, whole[first:last])


@pytest.mark.parametrize(("memory", "size", "strategy"), [
    (1e9, 2, "ddp"), (18 * 10**4, 2, "fsdp"), (18 * 10**4, 1, "ddp"),
])  # fmt: skip
def test_copies_are_trained_while_one_fits(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, memory: float, size: int, strategy: str
) -> None:
    monkeypatch.setattr("minigpt_cli.training.parallel.strategy._memory", lambda *_: memory)
    model = Learner(small_config(), dataset).model
    assert 5_000 < sum(p.numel() for p in model.parameters()) < 10_000
    device = torch.device("cpu")
    assert chosen("auto", group(0, size), model, device) == strategy
    assert chosen("fsdp", group(0, 2), model, device) == "fsdp"


def test_adapters_are_not_shared_out(dataset: Dataset) -> None:
    model = Learner(small_config(), dataset).model
    config = small_config("lora.rank=2", "distributed.strategy=fsdp")
    with pytest.raises(ConfigError, match="adapters"):
        strategy_for(config, group(0, 2), model, torch.device("cpu"))


def test_no_process_is_left_waiting_when_alone() -> None:
    assert "RANK" not in os.environ
    ALONE.join(1)
    assert ALONE.first(lambda: 1) == 1
    assert ALONE.agreed(0, 15) == [0, 15]
    assert ALONE.sums([0.1]) == [0.1]
    assert not dist.is_initialized()
