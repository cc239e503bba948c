"""The machine: its devices, numeric precision, speed and memory."""

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

from minigpt_cli.errors import ConfigError, OutOfMemoryError
from minigpt_cli.language import _, mark
from minigpt_cli.private_torch import cpu_has_bf16_instructions

# Fewer threads are chosen for a clear gain only.
_GAIN = 0.95
LESS_MEMORY = mark("the model or its context window (block_size) is too large for this machine")
"""What to say when a trained model does not fit in memory."""


def pick_device(setting: str) -> torch.device:
    """The device to compute on; `auto` uses an accelerator if there is one.

    Raises:
        ConfigError: the device is unknown, or this machine does not have it.
    """
    if setting == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(setting)
    except RuntimeError:
        raise ConfigError(
            _("unknown device {setting}; use auto, cpu, cuda, cuda:N or mps").format(
                setting=setting
            ),
            ("train.device",),
        ) from None
    count = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }.get(device.type, 0)
    if (device.index or 0) >= count:
        raise ConfigError(
            _("this machine has no device {setting}; use auto").format(setting=setting),
            ("train.device=auto",),
        )
    return device


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of the forward and backward pass; `auto` uses bf16 where it is faster."""
    if precision == "auto":
        precision = "bf16" if _fast_in_bf16(device) else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    """`bf16` or `fp32`, as in presets."""
    return "bf16" if dtype == torch.bfloat16 else "fp32"


def matmul_flops(device: torch.device, dtype: torch.dtype, size: int = 1024) -> float:
    """FLOP/s of a square matrix product, the best of twelve; the reference for utilization."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _matrix in range(2))
    a @ b
    seconds = []
    for _repeat in range(12):
        synchronize(device)
        started = time.perf_counter()
        a @ b
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


def _fast_in_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "mps":
        return False
    # Every CPU computes bf16, but few have instructions for it. PyTorch detects Intel's and AMD's;
    # on others, time a product of a few milliseconds.
    if cpu_has_bf16_instructions():
        return True
    bf16, fp32 = (matmul_flops(device, dtype, 512) for dtype in (torch.bfloat16, torch.float32))
    return bf16 > 1.5 * fp32


def choose_threads(work: Callable[[], float], enough: float, negligible: float = 0.0) -> int:
    """Sets the number of CPU threads that is the fastest now, and returns it.

    Threads wait for each other by spinning: beside another busy program, all of them together can
    be twenty times slower than one.

    Args:
        work: does a small part of the work, and returns the seconds it took.
        enough: seconds of it after which a number of threads is known well enough.
        negligible: seconds of it that one thread may take and be chosen without trying more:
            starting them, and preparing kernels for each number of them, takes tens of ms.
    """
    most = torch.get_num_threads()
    if most == 1:
        return most
    if negligible:
        torch.set_num_threads(1)
        work()  # also allocates
        if work() <= negligible:
            return 1
    best, best_seconds = most, float("inf")
    for threads in [most, most // 2, 1] if most > 3 else [most, 1]:
        torch.set_num_threads(threads)
        times = [work(), work()]
        while len(times) <= 5 and sum(times) < enough:
            times.append(work())
        # The first also allocates. The median: among busy neighbors, a quick one says nothing.
        seconds = median(times[1:])
        if seconds < _GAIN * best_seconds:
            best, best_seconds = threads, seconds
    torch.set_num_threads(best)
    return best


@contextmanager
def one_thread() -> Iterator[None]:
    """Computes with one thread inside: for work that is too short to wait for others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def reraise_out_of_memory(advice: str, settings: tuple[str, ...] = ()) -> Iterator[None]:
    """Turns a failed allocation into `out of memory; ADVICE`.

    Raises:
        OutOfMemoryError: an allocation failed inside.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and "DefaultCPUAllocator" not in str(error):  # a plain RuntimeError
            raise
        raise OutOfMemoryError(
            _("out of memory; {advice}").format(advice=_(advice)), settings
        ) from None


def machine_memory() -> int | None:
    """Bytes of memory of this machine, or of the container it is; None where that is unknown."""
    limits = []
    try:
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # Windows
        return None
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path("/sys/fs/cgroup", name).read_text("ascii")))
        except (OSError, ValueError):  # "max", or another version of cgroups
            continue
    return min(limits)


def machine_info(device: torch.device) -> dict[str, str | int]:
    """What a run depends on besides its settings, for reproducing it."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "processor": name,
        "threads": torch.get_num_threads(),
        "device": str(device),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def synchronize(device: torch.device) -> None:
    """Waits until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
