"""A benchmark against other programs runs to its end wherever some of them are missing."""

import sys
from pathlib import Path

from benchmarks.turns import Worker, ratio, versions


def test_a_peer_that_is_missing_or_fails_is_a_line_below_the_table(tmp_path: Path) -> None:
    with (
        Worker("nanoGPT", "train_nanogpt", [tmp_path, "fp32"], sys.executable, 1) as first,
        Worker("nonesuch", "nonesuch", [], sys.executable, 1) as second,
    ):
        for worker in (first, second):
            worker.take_turn("step", {})
            assert worker.median("step", "seconds") is None
    assert first.missing == "not installed (name a checkout with --nanogpt)"
    assert second.missing is not None
    assert second.missing.startswith("failed (")
    assert "No module named" in second.missing
    assert versions([first, second]).count("\n- ") == 2
    assert ratio(None, 1.0) == "-"
