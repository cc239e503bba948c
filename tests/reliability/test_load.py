"""Large texts and long uses stay within a memory that does not grow with them."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="needs getrusage")]
MOST = 500 * 2**20
# Runs a command and tells its exit status and its peak of resident memory, in bytes.
MEASURED = """
import json, resource, subprocess, sys
status = subprocess.run([sys.executable, "-m", "minigpt_cli", *sys.argv[1:]]).returncode
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps([status, peak if sys.platform == "darwin" else peak * 1024]))
"""
EVALUATED = """
import numpy as np
from minigpt_cli.config import ClassicConfig
from minigpt_cli.evaluation import evaluate
from minigpt_cli.model import GPT
from minigpt_cli.tokenizer import ByteTokenizer

def resident():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * 4096

model = GPT(ClassicConfig(n_layer=1, n_head=2, n_embd=16, block_size=16), 256)
tokens = np.arange(100, dtype=np.uint16) % 256
for number in range(1, 10_001):
    evaluate(model, ByteTokenizer(), tokens)
    if number == 1000:
        before = resident()
print(before, resident())
"""


def write_text(path: Path, size: int, words: int) -> None:
    """English-looking and Chinese text of our own, with so many different words."""
    chance = random.Random(0)
    syllables = [a + b for a in "bdghklmnprstvw" for b in ("a", "e", "i", "o", "u", "ea", "oo")]
    made = ["".join(chance.choices(syllables, k=chance.randint(1, 5))) for _ in range(words)]
    chinese = [
        "".join(chr(0x4E00 + chance.randrange(3000)) for _ in range(chance.randint(2, 8)))
        for _ in range(words // 10)
    ]
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < size:
            lines = []
            for _ in range(20_000):
                # As in any language, few words are frequent and most are rare.
                drawn = [made[int(words ** chance.random()) - 1] for _ in range(10)]
                lines.append(f"{' '.join(drawn)}, {chance.choice(chinese)}。\n")
            file.write("".join(lines))


@pytest.mark.parametrize(
    ("kind", "megabytes", "words"),
    [("char", 200, 100_000), ("byte", 200, 100_000), ("word", 50, 400_000), ("bpe", 10, 20_000)],
)
def test_a_large_text_is_tokenized_in_little_memory(
    tmp_path: Path, kind: str, megabytes: int, words: int
) -> None:
    text = tmp_path / "large.txt"
    write_text(text, megabytes * 10**6, words)
    command = ["tokenize", str(text), "--kind", kind, "--data-dir", str(tmp_path / "data")]
    result = subprocess.run(
        [sys.executable, "-c", MEASURED, *command], capture_output=True, text=True, check=True
    )
    status, peak = json.loads(result.stdout.splitlines()[-1])
    sys.stdout.write(f"{kind}: {peak / 2**20:.0f} MB at most for {megabytes} MB of text\n")
    assert status == 0, result.stderr
    assert peak < MOST


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_ten_thousand_evaluations_leave_memory_flat() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", EVALUATED], capture_output=True, text=True, check=True,
        env=environment,
    )  # fmt: skip
    before, after = map(int, result.stdout.split())
    sys.stdout.write(
        f"{(after - before) / 2**20:+.1f} MB from the 1,000th evaluation to the 10,000th\n"
    )
    assert after - before < 4 * 2**20
