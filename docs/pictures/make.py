"""Makes the pictures of the README: trains a preset in a terminal and draws what it became.

    python docs/pictures/make.py                                   # small, on tiny Shakespeare
    python docs/pictures/make.py --preset tiny -- --data my.txt    # options of minigpt train

The training picture is a screenshot, not a drawing: the command runs in a pseudo-terminal of 80
columns, and the SVG is the screen at three quarters of the steps. Needs Linux or macOS.
"""

import argparse
import contextlib
import io
import os
import pty
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from minigpt_cli.inspection.attention import attention_maps
from minigpt_cli.inspection.embeddings import project_embeddings
from minigpt_cli.plots.attention import draw_attention
from minigpt_cli.plots.canvas import image_bytes
from minigpt_cli.plots.embeddings import draw_embeddings
from minigpt_cli.runs.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[2]
COLUMNS, LINES = 80, 40
PROGRESS = re.compile(r"step ([\d,]+)/([\d,]+)")
CONTROL = re.compile(r"\x1b\[(\?25[lh]|2K|(\d*)A)|[\r\n]|\x1b\[[\d;]*m|[^\x1b\r\n]+")


class Screen:
    """The lines of a terminal; knows the few control codes that Rich's progress bar uses."""

    def __init__(self) -> None:
        self._lines = [""]
        self._row = 0

    def feed(self, text: str) -> None:
        """Writes to the screen.

        Args:
            text: output of a program, which may end within a control code only at its very end.
        """
        for match in CONTROL.finditer(text):
            code = match.group()
            if code == "\n":
                self._row += 1
                if self._row == len(self._lines):
                    self._lines.append("")
            elif code == "\x1b[2K":
                self._lines[self._row] = ""
            elif match.group(2) is not None:
                self._row = max(0, self._row - int(match.group(2) or 1))
            elif code != "\r" and not code.startswith("\x1b[?"):
                self._lines[self._row] += code

    def __str__(self) -> str:
        """The screen, with the codes for color and style."""
        return "\n".join(self._lines).rstrip()

    @property
    def progress(self) -> float:
        """The share of the steps that the bar shows, 0 without a bar."""
        found = PROGRESS.search(Text.from_ansi(self._lines[self._row]).plain)
        if not found:
            return 0.0
        step, steps = (int(number.replace(",", "")) for number in found.groups())
        return step / steps


def run_in_terminal(arguments: list[str], folder: Path) -> Iterator[str]:
    """The output of `minigpt` in a terminal, a line or a redrawn bar at a time.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "minigpt_cli", *arguments]
    size = {"COLUMNS": str(COLUMNS), "LINES": str(LINES), "TERM": "xterm-256color"}
    data = os.environ.get("MINIGPT_DATA", str(ROOT / "data"))
    environment = {**os.environ, **size, "MINIGPT_DATA": data}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        # Linux reports the end of the other side as an error.
        with (
            os.fdopen(ours, encoding="utf-8", newline="") as terminal,
            contextlib.suppress(OSError),
        ):
            yield from terminal
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def screenshot(screen: str, title: str) -> str:
    """A screen as SVG.

    Args:
        screen: lines with the codes for color and style.
        title: what the window's bar says.
    """
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(screen))
    return console.export_svg(title=title, unique_id="minigpt")


def train(preset: str, options: list[str], folder: Path) -> str:
    """Trains a preset in a folder; returns its screen at three quarters of the steps."""
    arguments = ["train", "--preset", preset]
    screen, shot = Screen(), ""
    for output in run_in_terminal([*arguments, *options], folder):
        for part in re.split(r"(?=\r)", output):
            screen.feed(part)
            if not shot and screen.progress >= 0.75:
                shot = str(screen)
    return shot or str(screen)  # without a bar there, the last screen


def main() -> None:
    """Trains, and writes training.svg, attention.png and embeddings.png."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--text", default="ROMEO: But soft", help="text for the attention map")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to fill")
    parser.add_argument("options", nargs="*", help="more options of minigpt train, after --")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        screen = train(asked.preset, asked.options, folder)
        (run,) = (folder / "runs").iterdir()  # named after the preset, or after one's own text
        checkpoint = load_checkpoint(run / "checkpoint.safetensors")
    name = f"runs/{run.name}, step {checkpoint.metadata.step:,}"
    attention = attention_maps(checkpoint, asked.text, checkpoint.metadata.model.n_layer // 2)
    pictures = {
        "training.svg": screenshot(screen, f"minigpt train --preset {asked.preset}").encode(),
        "attention.png": image_bytes(draw_attention(attention, name), "png"),
        "embeddings.png": image_bytes(draw_embeddings(project_embeddings(checkpoint), name), "png"),
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    for file, content in pictures.items():
        (asked.out / file).write_bytes(content)
        print(asked.out / file)


if __name__ == "__main__":
    main()
