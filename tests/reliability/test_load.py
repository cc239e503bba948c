"""Large texts and long use do not need more memory."""

import os
import sys
from pathlib import Path

import pytest

from benchmarks.reliability import evaluating, measured, write_text

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="needs getrusage")]
MOST = 500 * 10**6


@pytest.mark.parametrize(
    ("kind", "megabytes", "words"),
    [("char", 200, 100_000), ("byte", 200, 100_000), ("word", 50, 400_000), ("bpe", 10, 20_000)],
)
def test_a_large_text_is_tokenized_in_little_memory(
    tmp_path: Path, kind: str, megabytes: int, words: int
) -> None:
    text = tmp_path / "large.txt"
    write_text(text, megabytes * 10**6, words)
    peak = measured("tokenize", str(text), "--kind", kind, "--data-dir", str(tmp_path))["peak"]
    sys.stdout.write(f"{kind}: {peak / 1e6:.0f} MB at most for {megabytes} MB of text\n")
    assert peak < MOST


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_ten_thousand_evaluations_leave_memory_flat() -> None:
    resident = evaluating()
    growth = (resident[-1] - resident[0]) / 1e6
    sys.stdout.write(f"{growth:+.2f} MB from the 1,000th evaluation to the 10,000th\n")
    assert len(resident) == 10
    assert growth < 4
