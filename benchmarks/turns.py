"""Processes that take turns: a benchmark starts workers, and times a turn of each, round by round.

A worker may run in another Python, where neither minigpt nor PyTorch is installed, so everything
that a worker needs of this module comes from the standard library. Worker and benchmark exchange
lines of JSON through pipes.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[1]
Turn = Callable[[dict[str, Any]], dict[str, Any]]


def serve(prepare: Callable[[], tuple[str, Turn]]) -> None:
    """A worker's whole life: prepares, then takes a turn for every line on stdin.

    Args:
        prepare: returns the versions of what is measured, and a function from a request to an
            answer. Its `ImportError` says that the peer is not installed.
    """
    # What libraries print goes to stderr: stdout belongs to the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    try:
        version, turn = prepare()
    except ImportError as error:
        answer({"missing": str(error)})
        return
    answer({"version": version})
    for line in sys.stdin:
        answer(turn(json.loads(line)))


class Worker:
    """The benchmark's end of a worker.

    Attributes:
        name: as the table shows it.
        version: of the peer, once it has started.
        missing: why there is nothing to time; None if there is.
        turns: the answers so far, by the kind of turn.

    Args:
        name: as the table shows it.
        module: in `benchmarks.peers`, run by `python -m`.
        arguments: its command line.
        python: the interpreter, which may belong to another environment.
        threads: how many it may use.
    """

    def __init__(
        self, name: str, module: str, arguments: Sequence[object], python: str, threads: int
    ) -> None:
        self.name, self.version = name, ""
        self.missing: str | None = None
        self.turns: dict[str, list[dict[str, Any]]] = {}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        # The parent's environment, but for what would tie a worker to the parent's packages.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [python, "-m", f"benchmarks.peers.{module}", *map(str, arguments)], cwd=ROOT,
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            encoding="utf-8",
        )  # fmt: skip
        found = self._answer()
        self.version = found.get("version", "")
        if "missing" in found:
            self.missing = f"not installed ({found['missing']})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def take_turn(self, kind: str, request: dict[str, Any], timed: bool = True) -> None:
        """One turn. A worker that fails is left out from then on, and `missing` says why."""
        if self.missing is not None:
            return
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        if timed and self.missing is None:
            self.turns.setdefault(kind, []).append(answer)

    def median(self, kind: str, key: str) -> float | None:
        """Over the turns of one kind; None if it has none."""
        values = [turn[key] for turn in self.turns.get(kind, []) if turn.get(key) is not None]
        return statistics.median(values) if values else None

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if line:
            found: dict[str, Any] = json.loads(line)
            return found
        self._errors.seek(0)
        printed = self._errors.read().decode(errors="replace").strip().splitlines()
        self.missing = f"failed ({printed[-1][:200] if printed else 'without a word'})"
        return {}


def interpreter(path: str) -> str:
    """An option's value: another environment's Python, wherever a worker starts."""
    found = shutil.which(path)
    if found is None:
        raise argparse.ArgumentTypeError(f"{path}: not a program")
    return str(Path(found).absolute())


def versions(workers: Sequence[Worker]) -> str:
    """A sentence for below the table, and a line for each that is missing."""
    known = dict.fromkeys(worker.version for worker in workers if worker.version)
    lines = [f"Versions: {'; '.join(known)}."]
    lines += [f"- {worker.name}: {worker.missing}" for worker in workers if worker.missing]
    return "\n\n".join(lines[:1]) + ("\n\n" + "\n".join(lines[1:]) if lines[1:] else "")


def ratio(value: float | None, base: float | None) -> str:
    """A cell: one speed over another."""
    return f"{value / base:.2f}" if value and base else "-"
