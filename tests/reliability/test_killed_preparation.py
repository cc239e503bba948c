"""A large text is prepared by several processes, which are killed at any moment."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.seeds import seed

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="needs kill -9")]

PROGRAM = """
import sys
from minigpt_cli.data.tokens import encoders
from minigpt_cli.data.corpora import encodings
from minigpt_cli.data.tokens import shards
encodings._CHUNK = 1 << 16
shards.WHOLE_BYTES, shards.SHARD_TOKENS, encoders.WORTH_PROCESSES = 1000, 100_000, 1000
cores = int(sys.argv.pop(1))
encoders.usable_cores = lambda: cores
from minigpt_cli.__main__ import main
main()
"""
TEXT = "".join(f"{i}: {i * 7919 % 1000} herons wait, boats don't move.\n" for i in range(100_000))


def preparing(folder: Path, cores: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROGRAM, str(cores), "tokenize", str(folder / "tale.txt")]
    command += ["--kind", "bpe", "--vocab-size", "300", "--data-dir", str(folder / "data")]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)  # fmt: skip


def prepared(folder: Path, cores: int) -> dict[str, bytes]:
    with preparing(folder, cores) as process:
        _, message = process.communicate()
    assert process.returncode == 0, message
    (found,) = [path for path in (folder / "data" / "tale").iterdir() if path.is_dir()]
    return {path.name: path.read_bytes() for path in found.glob("*.bin")}


def of_session(leader: int) -> list[str]:
    shown = subprocess.run(["ps", "-s", str(leader), "-o", "pid="], capture_output=True, text=True)
    return shown.stdout.split()


def test_the_shards_are_the_same_whatever_is_killed_and_however_many_cores_work(
    tmp_path: Path,
) -> None:
    chance = random.Random(seed())
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tale.txt").write_text(TEXT, encoding="utf-8")
    whole = prepared(tmp_path / "whole", 1)
    assert len(whole) > 10
    kept: list[str] = []
    for wanted in (2, 5, 8):
        with preparing(tmp_path / "killed", chance.choice([1, 2, 3])) as process:
            parts = tmp_path / "killed" / "data" / "tale"
            while len(list(parts.glob(".*.part/train-*.bin"))) < wanted:
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.005)
            time.sleep(chance.random() / 10)
            process.send_signal(chance.choice([signal.SIGKILL, signal.SIGINT, signal.SIGTERM]))
            process.communicate()
        end = time.monotonic() + 60
        while of_session(process.pid):
            assert time.monotonic() < end, "a process was left behind"
            time.sleep(0.02)
        left = {path.name: path.read_bytes() for path in parts.glob(".*.part/train-*.bin")}
        done = sorted(left)[:-1]  # the last one may not be whole
        assert all(left[name] == whole[name] for name in done)
        assert set(kept) <= set(done)
        kept = done
    assert prepared(tmp_path / "killed", 2) == whole
