"""The cost of preparing a text: `python -m benchmarks.data`.

Whole commands are timed on invented text, the first time and when it is found again. Tokenizing
with `bpe` is compared with Hugging Face's library alone, in as many processes, each of which
encodes an equal part of the same text that it has in memory. Peak memory is that of all processes
together.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

from benchmarks.machine import keep, markdown
from benchmarks.reliability import write_text
from minigpt_cli.data.tokens.encoders import usable_cores

WORDS = 60_000
# The library alone: encodes a part of a text, in pieces as we do, and prints its seconds.
BARE = """
import sys, time, tokenizers
saved, path, part, parts = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
library = tokenizers.Tokenizer.from_file(saved)
with open(path, "rb") as file:
    size = file.seek(0, 2)
    file.seek(size * part // parts)
    data = file.read(size * (part + 1) // parts - size * part // parts)
lines = data.decode("utf-8", "ignore").splitlines(keepends=True)
pieces = ["".join(lines[i : i + 100]) for i in range(0, len(lines), 100)]
del data, lines
print("ready", flush=True)
sys.stdin.readline()
started, tokens = time.perf_counter(), 0
for i in range(0, len(pieces), 64):
    tokens += sum(len(each.ids) for each in library.encode_batch_fast(pieces[i : i + 64]))
print(time.perf_counter() - started, tokens, flush=True)
"""


class Memory:
    """The most memory that the processes of a session use together, by looking again and again.

    Pages that several share count once (Pss); 0 where the system has no /proc.
    """

    def __init__(self, leader: int) -> None:
        self.peak = 0
        self._leader, self._ended = leader, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def stop(self) -> int:
        """Ends looking; returns the peak in bytes."""
        self._ended.set()
        self._thread.join()
        return self.peak

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            self.peak = max(self.peak, sum(map(self._used, Path("/proc").glob("[0-9]*"))))

    def _used(self, process: Path) -> int:
        try:
            stat = (process / "stat").read_text().rpartition(")")[2].split()
            if int(stat[3]) != self._leader:
                return 0
            rolled = (process / "smaps_rollup").read_text()
        except (OSError, IndexError):  # it has ended
            return 0
        return sum(int(line.split()[1]) << 10 for line in rolled.splitlines() if "Pss:" in line)


def run(*command: str) -> tuple[float, int, dict[str, Any]]:
    """Seconds and peak memory of a `minigpt` command, and the JSON that it prints."""
    call = [sys.executable, "-m", "minigpt_cli", *command, "--json"]
    started = time.perf_counter()
    with subprocess.Popen(call, stdout=PIPE, stderr=DEVNULL, start_new_session=True) as process:
        memory = Memory(process.pid)
        printed, _ = process.communicate()
        seconds = time.perf_counter() - started
        peak = memory.stop()
    assert process.returncode == 0, command
    return seconds, peak, json.loads(printed)


def bare(text: Path, tokenizer: Path, processes: int) -> float:
    """Seconds of the library alone, from when all processes are ready to when the last ends."""
    library = tokenizer.with_name("library.json")
    library.write_text(json.dumps(json.loads(tokenizer.read_text())["tokenizer"]))
    environment = {**os.environ, "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", BARE, str(library), str(text), str(part), str(processes)],
            stdin=PIPE,
            stdout=PIPE,
            text=True,
            env=environment,
        )
        for part in range(processes)
    ]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    begun = time.perf_counter()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in started:
        process.communicate()
    library.unlink()
    return time.perf_counter() - begun


def plain(text: Path, folder: Path) -> tuple[list[list[str]], list[dict[str, Any]]]:
    """Tokenizers that need no library: the whole command, first and again."""
    rows, numbers = [], []
    megabytes = text.stat().st_size / 1e6
    for kind in ("char", "byte"):
        options = ("tokenize", str(text), "--kind", kind, "--data-dir", str(folder))
        times = {"first": run(*options), "found again": run(*options)}
        for _ in range(2):  # the first one after also verifies what was written just before
            times["found again"] = min(times["found again"], run(*options))
        times["--verify"] = run(*options, "--verify")
        for what, (seconds, peak, _) in times.items():
            rate = f"{megabytes / seconds:,.0f}" if what != "found again" else "-"
            rows.append([f"{kind}, {what}", f"{megabytes:,.0f} MB", f"{seconds:.2f} s", rate,
                         f"{peak / 1e6:.0f} MB"])  # fmt: skip
            numbers.append({"kind": kind, "what": what, "seconds": seconds, "peak": peak})
            print(rows[-1], flush=True)
        shutil.rmtree(folder)
    return rows, numbers


def byte_pairs(text: Path, folder: Path, vocab_size: int) -> tuple[list[list[str]], dict[str, Any]]:
    """BPE: the whole command, its tokenizing, and the library alone."""
    options = ("tokenize", str(text), "--kind", "bpe", "--vocab-size", str(vocab_size))
    seconds, peak, made = run(*options, "--data-dir", str(folder))
    again, _, _ = run(*options, "--data-dir", str(folder))
    (tokenizer,) = folder.glob("*/*/tokenizer.json")
    alone = bare(text, tokenizer, usable_cores())
    megabytes, tokenizing = text.stat().st_size / 1e6, made["seconds"]
    shards = len(list(tokenizer.parent.glob("*-*.bin")))
    name = f"bpe {vocab_size:,}"
    table = [
        (f"{name}, whole command", seconds, f"{peak / 1e6:.0f} MB"),
        (f"{name}, of it tokenizing ({alone / tokenizing:.0%} of the library's speed)",
         tokenizing, f"{shards} shards"),
        (f"the library alone, {usable_cores()} processes", alone, "-"),
        (f"{name}, found again", again, "-"),
    ]  # fmt: skip
    rows = [
        [what, f"{megabytes:,.0f} MB", f"{taken:.2f} s", f"{megabytes / taken:,.1f}", last]
        for what, taken, last in table
    ]
    for row in rows:
        print(row, flush=True)
    return rows, {"whole": seconds, "tokenizing": tokenizing, "library": alone, "again": again,
                  "peak": peak, "bytes": text.stat().st_size, "shards": shards}  # fmt: skip


def main() -> None:
    """Measures the small text with all kinds, and the large one with BPE."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--megabytes", type=float, default=200, help="of the text for char and byte"
    )
    parser.add_argument("--bpe-megabytes", type=float, default=2000, help="of the text for bpe")
    parser.add_argument("--vocab-size", type=int, default=32_768, help="of bpe")
    parser.add_argument("--folder", type=Path, help="where to work, on the disk to be measured")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        text, long = folder / "text.txt", folder / "long.txt"
        write_text(text, int(arguments.megabytes * 1e6), WORDS)
        rows, numbers = plain(text, folder / "data")
        write_text(long, int(arguments.bpe_megabytes * 1e6), WORDS)
        more, bpe = byte_pairs(long, folder / "data", arguments.vocab_size)
    columns = ["preparing", "text", "time", "MB/s", "memory of all processes"]
    keep("data", markdown(columns, rows + more), {"plain": numbers, "bpe": bpe})


if __name__ == "__main__":
    main()
