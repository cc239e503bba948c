"""The processes that train one model together: who they are, and how they agree.

Two channels connect them. The store (PyTorch's `TCPStore`) carries short texts at any time and
without a time-out: settings, decisions of rank 0, and why a process failed. The process group
carries tensors; its operations fail when a process is gone and time out when one is slow, so it is
joined only once every process has its text. Texts are JSON: nothing is ever unpickled.

One process has `ALONE`, whose methods do nothing, so that the code calling them is the same.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from minigpt_cli.errors import ConfigError, MinigptError, PeerLostError, TrainingError, about
from minigpt_cli.io.ranks import started_together
from minigpt_cli.language import _

_ARRIVAL_SECONDS = 600.0
"""How long a process waits for rank 0; the machines of a job may start minutes apart."""
_SHORTEST_WAIT, _LONGEST_WAIT = 0.0005, 0.1
_LETTING_GO = 0.1
"""A pause for Gloo's threads, which let go of tensors after all have the results. With FSDP2 they
run on, and one that needs the interpreter when Python shuts down aborts the process."""
_FAILURE = "failure"

T = TypeVar("T")


class Group:
    """This process on its own: nothing to share and nobody to agree with.

    `Ranks` is the same for several processes.
    """

    rank = 0
    """Number of this process, from 0."""
    size = 1
    """Number of processes."""
    local_rank = 0
    """Number of this process on its machine."""
    local_size = 1
    """Number of processes on this machine."""

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the process that speaks and saves."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """This process's part of `count` things; the parts' sizes differ by at most one."""
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def device(self, wanted: torch.device) -> torch.device:
        """The device of this process, of the kind that the settings name."""
        return wanted

    def threads(self) -> int:
        """CPU threads for this process; 0 leaves them to be measured."""
        return 0

    def first(self, work: Callable[[], T]) -> T:
        """What `work` returns on rank 0 (JSON), in every process. No time-out applies."""
        return work()

    def compare(self, name: str, value: Any, problem: Callable[[Any], MinigptError | None]) -> None:
        """Compares a JSON value with rank 0's.

        Args:
            name: what is compared.
            value: of this process.
            problem: given rank 0's value, the error to raise, or None.
        """

    def once_per_machine(
        self,
        make: Callable[[], T],
        name: Callable[[T], str],  # noqa: ARG002 - for those that share a machine
        find: Callable[[str], T],  # noqa: ARG002
    ) -> T:
        """Makes something on one process of each machine; the others there find it by name."""
        return make()

    def join(self, timeout: float) -> None:
        """Waits for all processes, however long, and joins the process group with them.

        Args:
            timeout: seconds that an operation on tensors may take from now on.
        """

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replaces a tensor with the sum over all processes."""
        return tensor

    def sums(self, numbers: Sequence[float]) -> list[float]:
        """Each number summed over all processes, in double precision."""
        return list(numbers)

    def agreed(self, *numbers: int) -> list[int]:
        """The largest of each number over all processes."""
        return list(numbers)

    def broadcast_(self, tensor: Tensor) -> Tensor:
        """Replaces a tensor with rank 0's."""
        return tensor

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Turns a failed operation between processes into `PeerLostError`."""
        yield


ALONE = Group()


@dataclass(frozen=True)
class Place:
    """Where this process stands among those that `torchrun` or `--processes` started."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    host: str = "127.0.0.1"
    port: int = 0

    @classmethod
    def from_environment(cls) -> "Place":
        """Reads the variables that `torchrun` sets; without them there is one process.

        Raises:
            ConfigError: a variable is not a number, or they contradict each other.
        """
        if not started_together():
            return cls()
        values = os.environ
        try:
            rank, size, port = (int(values[n]) for n in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
            # Without them, each process counts as a machine of its own.
            local_rank = int(values.get("LOCAL_RANK", 0))
            local_size = int(values.get("LOCAL_WORLD_SIZE", 1))
        except ValueError:
            raise ConfigError(
                _(
                    "RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE and MASTER_PORT must be "
                    "numbers; start the processes with torchrun"
                )
            ) from None
        if not (0 <= rank < size and 0 <= local_rank < local_size <= size):
            raise ConfigError(
                _(
                    "RANK = {rank} of WORLD_SIZE = {size} and LOCAL_RANK = {local_rank} of "
                    "LOCAL_WORLD_SIZE = {local_size} contradict each other; start the processes "
                    "with torchrun"
                ).format(rank=rank, size=size, local_rank=local_rank, local_size=local_size)
            )
        return cls(rank, size, local_rank, local_size, values["MASTER_ADDR"], port)


@contextmanager
def connected() -> Iterator[Group]:
    """The group that this process was started in, until the context ends.

    An error that leaves the context is told to the other processes.

    Raises:
        TrainingError: rank 0 cannot listen, or cannot be reached.
    """
    place = Place.from_environment()
    if place.size == 1:
        yield ALONE
        return
    ranks = Ranks(place, _connect(place))
    try:
        yield ranks
    except MinigptError as error:
        ranks.announce(error)
        raise
    else:
        ranks.part()
    finally:
        if dist.is_initialized():
            with suppress(RuntimeError):
                dist.destroy_process_group()
            time.sleep(_LETTING_GO)


def _connect(place: Place) -> Store:
    # torchrun's agent keeps a store that outlives the processes it restarts.
    by_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        store = TCPStore(
            place.host,
            place.port,
            place.size,
            is_master=place.rank == 0 and not by_agent,
            timeout=timedelta(seconds=_ARRIVAL_SECONDS),
            wait_for_workers=False,
        )
    except RuntimeError as error:
        where = f"{place.host}:{place.port}"
        problem = _("{where}: process 0 of this run cannot be reached")
        if place.rank == 0 and not by_agent:
            problem = _(
                "{where}: the processes cannot meet here ({reason}); choose another port with "
                "MASTER_PORT"
            )
        raise TrainingError(problem.format(where=where, reason=_reason(error))) from None
    return PrefixStore(f"minigpt/{attempt}", store)


def _reason(error: RuntimeError) -> str:
    return _("the port is in use") if "EADDRINUSE" in str(error) else str(error).splitlines()[0]


class Ranks(Group):
    """One of several processes."""

    def __init__(self, place: Place, store: Store) -> None:
        self.rank, self.size = place.rank, place.size
        self.local_rank, self.local_size = place.local_rank, place.local_size
        self._store, self._told = store, 0

    def device(self, wanted: torch.device) -> torch.device:
        """With CUDA, the GPU with this process's number.

        Raises:
            ConfigError: there are more processes than GPUs, or one GPU is named for several.
        """
        if wanted.type != "cuda" or (self.local_size == 1 and wanted.index is not None):
            return wanted
        if wanted.index is not None:
            raise ConfigError(
                _("train.device = {device} is one GPU for {processes} processes; use cuda").format(
                    device=wanted, processes=self.local_size
                ),
                ("train.device=cuda",),
            )
        count = torch.cuda.device_count()
        if self.local_size > count:
            raise ConfigError(
                _(
                    "this machine has {gpus} GPUs for {processes} processes; start one process for "
                    "each GPU, or train on the CPU"
                ).format(gpus=count, processes=self.local_size),
                ("train.device=cpu",),
            )
        device = torch.device("cuda", self.local_rank)
        torch.cuda.set_device(device)
        return device

    def threads(self) -> int:
        """This process's share of the cores of its machine, or OMP_NUM_THREADS."""
        by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ  # which sets it to 1
        if "OMP_NUM_THREADS" in os.environ and not by_torchrun:
            return torch.get_num_threads()
        return max(1, _cores() // self.local_size)

    def first(self, work: Callable[[], T]) -> T:
        self._told += 1
        key = f"told/{self._told}"
        if not self.is_first:
            told: T = self._get(key)
            return told
        result = work()
        self._set(key, result)
        return result

    def compare(self, name: str, value: Any, problem: Callable[[Any], MinigptError | None]) -> None:
        if self.is_first:
            self._set(f"compared/{name}", value)
        elif (error := problem(self._get(f"compared/{name}"))) is not None:
            raise error

    def once_per_machine(
        self, make: Callable[[], T], name: Callable[[T], str], find: Callable[[str], T]
    ) -> T:
        key = f"made/{self.rank - self.local_rank}"
        if self.local_rank:
            return find(self._get(key))
        made = make()
        self._set(key, name(made))
        return made

    def join(self, timeout: float) -> None:
        with self._peers():
            if self._store.add("ready", 1) == self.size:
                self._set("all-ready", True)
        self._get("all-ready")
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        with self._peers():
            dist.init_process_group(
                backend,
                store=PrefixStore("group", self._store),
                rank=self.rank,
                world_size=self.size,
                timeout=timedelta(seconds=timeout),
            )

    def sum_(self, tensor: Tensor) -> Tensor:
        with self._peers():
            dist.all_reduce(tensor)
        return tensor

    def sums(self, numbers: Sequence[float]) -> list[float]:
        return self.sum_(torch.tensor(numbers, dtype=torch.float64)).tolist()

    def agreed(self, *numbers: int) -> list[int]:
        # On the CPU, also beside a GPU, which goes on working meanwhile.
        largest = torch.tensor(numbers, dtype=torch.int64)
        with self._peers():
            dist.all_reduce(largest, dist.ReduceOp.MAX)
        agreed: list[int] = largest.tolist()
        return agreed

    def broadcast_(self, tensor: Tensor) -> Tensor:
        with self._peers():
            dist.broadcast(tensor, 0)
        return tensor

    @contextmanager
    def watched(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if not _is_about_peers(error):
                raise
            raise self._lost() from None

    def announce(self, error: MinigptError) -> None:
        """Tells the other processes why this one ends; the first that does is heard."""
        if not isinstance(error, PeerLostError):
            told = {"rank": self.rank, "message": str(error), "settings": error.settings}
            with suppress(RuntimeError):
                self._store.compare_set(_FAILURE, "", json.dumps(told))

    def part(self) -> None:
        """Waits until the other processes need this one, and its store, no more."""
        if dist.is_initialized():
            with suppress(PeerLostError):
                self.agreed(0)

    def _set(self, key: str, value: Any) -> None:
        with self._peers():
            self._store.set(key, json.dumps(value))

    def _get(self, key: str) -> Any:
        """Waits for a value. In Python, so that signals are handled meanwhile."""
        wait = _SHORTEST_WAIT
        while True:
            with self._peers():
                if self._store.check([key]):
                    return json.loads(self._store.get(key))
                failed = self._store.check([_FAILURE])
            if failed:
                raise self._lost()
            time.sleep(wait)
            wait = min(_LONGEST_WAIT, 1.5 * wait)

    @contextmanager
    def _peers(self) -> Iterator[None]:
        """Every failure inside is that of another process."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            raise self._lost() from None

    def _lost(self) -> PeerLostError:
        with suppress(RuntimeError):
            if self._store.check([_FAILURE]):
                told = json.loads(self._store.get(_FAILURE))
                where = _("process {rank} of {size}").format(rank=told["rank"], size=self.size)
                return PeerLostError(about(where, told["message"]), tuple(told["settings"]))
        return PeerLostError(_("another process of this run ended"))


def _is_about_peers(error: RuntimeError) -> bool:
    if isinstance(error, dist.DistError):
        return True
    return any(word in str(error) for word in ("gloo", "NCCL", "Connection closed by peer"))


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1
