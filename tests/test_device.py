"""Choosing a device and a precision, on this machine and on simulated ones."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch

from minigpt_cli import device as device_module
from minigpt_cli.device import (
    dtype_name,
    matmul_flops,
    pick_device,
    pick_dtype,
    reraise_out_of_memory,
    synchronize,
)
from minigpt_cli.errors import ConfigError, OutOfMemoryError

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Simulates a machine with neither an accelerator nor bf16 instructions."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    return monkeypatch


def with_cuda(machine: pytest.MonkeyPatch, count: int) -> None:
    machine.setattr(torch.cuda, "is_available", lambda: True)
    machine.setattr(torch.cuda, "device_count", lambda: count)


def test_auto_uses_the_cpu_without_an_accelerator(machine: pytest.MonkeyPatch) -> None:
    assert pick_device("auto") == CPU


def test_auto_uses_an_available_accelerator(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("mps")
    with_cuda(machine, 1)
    assert pick_device("auto") == torch.device("cuda")


def test_available_device_can_be_chosen(machine: pytest.MonkeyPatch) -> None:
    assert pick_device("cpu") == CPU
    with_cuda(machine, 2)
    assert pick_device("cuda") == torch.device("cuda")
    assert pick_device("cuda:1") == torch.device("cuda:1")
    machine.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("mps") == torch.device("mps")


@pytest.mark.parametrize("setting", ["cuda", "cuda:0", "mps", "meta", "xpu", "cpu:1"])
def test_unavailable_device_is_rejected_with_a_fix(
    setting: str, machine: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=f"this machine has no device {setting}; use auto$"):
        pick_device(setting)


def test_gpu_index_beyond_the_last_is_rejected(machine: pytest.MonkeyPatch) -> None:
    with_cuda(machine, 2)
    with pytest.raises(ConfigError, match="this machine has no device cuda:2"):
        pick_device("cuda:2")


@pytest.mark.parametrize("setting", ["gpu", "", "cuda:", "cuda:x", "CPU", "cuda:-1", "auto "])
def test_unknown_device_is_rejected_with_the_valid_ones(
    setting: str, machine: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"use auto, cpu, cuda, cuda:N or mps"):
        pick_device(setting)


@pytest.mark.parametrize("kind", ["cpu", "cuda", "mps"])
def test_explicit_precision_is_used_on_every_device(kind: str) -> None:
    assert pick_dtype("fp32", torch.device(kind)) == torch.float32
    assert pick_dtype("bf16", torch.device(kind)) == torch.bfloat16


@pytest.mark.parametrize("name", ["_is_avx512_bf16_supported", "_is_amx_tile_supported"])
def test_auto_precision_is_bf16_if_the_cpu_has_instructions_for_it(
    name: str, machine: pytest.MonkeyPatch
) -> None:
    machine.setattr(torch.cpu, name, lambda: True, raising=False)
    machine.setattr(device_module, "matmul_flops", lambda *_: 0.0)
    assert pick_dtype("auto", CPU) == torch.bfloat16


@pytest.mark.parametrize(
    ("bf16", "fp32", "expected"), [(3e11, 1e11, torch.bfloat16), (1e11, 1e11, torch.float32)]
)
def test_auto_precision_of_an_unknown_cpu_is_the_faster_one(
    bf16: float, fp32: float, expected: torch.dtype, machine: pytest.MonkeyPatch
) -> None:
    speeds = {torch.bfloat16: bf16, torch.float32: fp32}
    machine.setattr(device_module, "matmul_flops", lambda device, dtype, size: speeds[dtype])
    assert pick_dtype("auto", CPU) == expected


@pytest.mark.parametrize("has_bf16", [True, False])
def test_auto_precision_of_a_gpu_is_bf16_only_in_hardware(
    has_bf16: bool, machine: pytest.MonkeyPatch
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return has_bf16 or including_emulation

    machine.setattr(torch.cuda, "is_bf16_supported", supported)
    expected = torch.bfloat16 if has_bf16 else torch.float32
    assert pick_dtype("auto", torch.device("cuda")) == expected


def test_auto_precision_of_mps_is_fp32(machine: pytest.MonkeyPatch) -> None:
    assert pick_dtype("auto", torch.device("mps")) == torch.float32


def test_precision_names_are_those_of_presets() -> None:
    for name in ("fp32", "bf16"):
        assert dtype_name(pick_dtype(name, CPU)) == name


def test_speed_is_the_flops_of_a_product_over_the_best_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A clock by which the products take 4, 3, 0.5, 2 and then always 1 second.
    starts = [0, 4, 7, 7.5, 9.5, *(9.5 + i for i in range(1, 20))]
    times = iter([moment for pair in pairwise(starts) for moment in pair])

    def clock(times: Iterator[float] = times) -> float:
        return next(times)

    monkeypatch.setattr("minigpt_cli.device.time.perf_counter", clock)
    size = 8  # a product of two 8 × 8 matrices: 64 entries of 8 multiplications and 8 additions
    assert matmul_flops(CPU, torch.float32, size) == 64 * (8 + 8) / 0.5


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_synchronize_waits_for_the_given_device(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waited.append(device.type))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    synchronize(CPU)
    assert waited == []
    synchronize(torch.device(kind))
    assert waited == [kind]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 GB"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 GB"),
    ],
)
def test_failed_allocation_becomes_advice(error: Exception) -> None:
    advice = pytest.raises(OutOfMemoryError, match="out of memory; buy some")
    with advice, reraise_out_of_memory("buy some"):
        raise error


def test_other_runtime_errors_stay_bugs() -> None:
    with pytest.raises(RuntimeError, match="shape"), reraise_out_of_memory("buy some"):
        raise RuntimeError("shape mismatch")
