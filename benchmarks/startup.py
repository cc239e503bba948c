"""Time to the first character: `python -m benchmarks.startup`.

Programs that each do a little more than the one before, from a bare interpreter to
`minigpt generate` with a model like `small`, started in turn, so that changes of the machine's
speed affect all of them. The floor is a program that imports PyTorch and multiplies two matrices.
Processor time does not depend on other programs as much as the clock does.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import astuple, dataclass
from pathlib import Path

from benchmarks.generate import trained_like_small
from benchmarks.machine import keep, markdown

_SAY = "import os; os.write(1, b'.')"
_MULTIPLY = "x = torch.ones(64, 64); x @ x"
_QUICKLY = "from minigpt_cli.cli.startup import import_torch; import_torch(); import torch"
_MODULES = (
    "import minigpt_cli.cli.app, minigpt_cli.cli.writing, minigpt_cli.cli.loading, "
    "minigpt_cli.training.opening, minigpt_cli.model.quantization"
)
PROGRAMS = {
    "a bare interpreter": ["-c", _SAY],
    "`minigpt --version`": ["-m", "minigpt_cli", "--version"],
    "`minigpt generate --help`": ["-m", "minigpt_cli", "generate", "--help"],
    "`import torch`, one product": ["-c", f"import torch; {_MULTIPLY}; {_SAY}"],
    "`import_torch()`, one product": ["-c", f"{_QUICKLY}; {_MULTIPLY}; {_SAY}"],
    "and the modules of minigpt": ["-c", f"{_QUICKLY}; {_MULTIPLY}; {_MODULES}; {_SAY}"],
    "`minigpt generate`, one thread": ["-m", "minigpt_cli", "generate", "-p", "", "-n", "1"],
    "`minigpt generate`": ["-m", "minigpt_cli", "generate", "-p", "", "-n", "1"],
}


@dataclass(frozen=True)
class Start:
    """Seconds that one start of a program took."""

    first: float
    """Until its first byte of output."""
    whole: float
    """Until it had ended."""
    processor: float
    """Of all its threads, in the program and in the system."""


def start(arguments: list[str], folder: Path, env: dict[str, str]) -> Start:
    """Runs a program to its end.

    Raises:
        SystemExit: it failed.
    """
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, env=env,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout
        process.stdout.read(1)
        first = time.perf_counter() - began
        process.stdout.read()
        _pid, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{arguments} failed")
    return Start(first, time.perf_counter() - began, used.ru_utime + used.ru_stime)


def main() -> None:
    """Starts the programs in turn and keeps the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    starts: dict[str, list[Start]] = {name: [] for name in PROGRAMS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = trained_like_small(folder) | {"PYTHONPATH": str(Path.cwd())}
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled
        for turn in range(-1, rounds):  # the first compiles, and reads the files from the disk
            for program, arguments in PROGRAMS.items():
                alone = {"OMP_NUM_THREADS": "1"} if "one thread" in program else {}
                measured = start(arguments, folder, env | alone)
                if turn >= 0:
                    starts[program].append(measured)
    columns = ["seconds", "first byte", "least", "end", "least", "processor", "least"]
    rows = []
    for program, found in starts.items():
        cells = [program]
        for values in zip(*map(astuple, found), strict=True):
            cells += [f"{statistics.median(values):.3f}", f"{min(values):.3f}"]
        rows.append(cells)
    table = markdown(columns, rows)
    table += f"\n\nMedians and least of {rounds} starts of each, in turn."
    keep("startup", table, {name: list(map(astuple, found)) for name, found in starts.items()})


if __name__ == "__main__":
    main()
