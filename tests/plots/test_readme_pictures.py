"""The script that makes the README's pictures: its screenshot is what the terminal showed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text

MAKE = Path(__file__).parents[2] / "docs" / "pictures" / "make.py"
pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")


@pytest.fixture(scope="module")
def make() -> Any:
    spec = importlib.util.spec_from_file_location("make_pictures", MAKE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_redrawn_bar_stays_below_the_lines_printed_above_it(make: Any) -> None:
    screen = make.Screen()
    screen.feed("\x1b[?25lModel: x\r\n\x1b[1mstep 1/1,000\x1b[0m")
    assert screen.progress == 0.001
    screen.feed("\r\x1b[2K    500  1.5\r\n")
    screen.feed("step 750/1,000\r\x1b[2Kstep 751/1,000 \x1b[32mloss\x1b[0m")
    assert screen.progress == 0.751
    assert Text.from_ansi(str(screen)).plain == "Model: x\n    500  1.5\nstep 751/1,000 loss"
    screen.feed("\r\n\x1b[1A\x1b[2K")
    assert Text.from_ansi(str(screen)).plain == "Model: x\n    500  1.5"
    assert screen.progress == 0


def test_a_screenshot_keeps_text_and_colors(make: Any) -> None:
    svg = make.screenshot("plain \x1b[32m<green>\x1b[0m", "a title")
    assert "&lt;green&gt;" in svg
    assert "a&#160;title" in svg
    assert svg == make.screenshot("plain \x1b[32m<green>\x1b[0m", "a title")


@pytest.mark.slow
def test_pictures_of_a_tiny_run_are_made(tmp_path: Path, story: str) -> None:
    (tmp_path / "story.txt").write_text(story, encoding="utf-8")
    training = ["--data", str(tmp_path / "story.txt"), "--data-dir", str(tmp_path / "data")]
    command = [sys.executable, str(MAKE), "--preset", "tiny", "--text", "The old heron"]
    subprocess.run([*command, "--out", str(tmp_path / "made"), "--", *training], check=True)
    made = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    assert made.keys() == {"training.svg", "attention.png", "embeddings.png"}
    svg = made["training.svg"].decode().replace("&#160;", " ")
    assert "Model:  modern" in svg
    assert "tok/s" in svg  # the bar, while it trains
    assert "50 " in svg  # the first evaluation
