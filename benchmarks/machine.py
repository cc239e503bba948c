"""Describes the machine of a measurement, and keeps the results."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from minigpt_cli import __version__

RESULTS = Path(__file__).parent / "results"


def describe_machine() -> dict[str, Any]:
    """Processor, accelerator and versions."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "minigpt": __version__,
    }


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def keep(name: str, table: str, numbers: dict[str, Any]) -> None:
    """Prints a table and writes it, with its raw numbers, to `benchmarks/results/`."""
    machine = describe_machine()
    where = (
        f"{machine['processor']}, {machine['cores']} cores, GPU: {machine['gpu'] or 'none'}, "
        f"Python {machine['python']}, torch {machine['torch']}, minigpt {machine['minigpt']}"
    )
    text = f"`python -m benchmarks.{name}` on {where}\n\n{table}\n"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    values = {"machine": machine, **numbers}
    (RESULTS / f"{name}.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
