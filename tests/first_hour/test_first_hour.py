"""What a newcomer types in the first hour, on a screen of 80 columns.

`tests/cli` tests the same behavior one
command at a time; here it is the whole path, with a real shell, terminal and keyboard.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.terminal import Terminal

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal"),
]


@dataclass(frozen=True)
class Typed:
    """A line, how its command must end, and what the screen must show."""

    line: str
    status: int
    shows: tuple[str, ...] = ()


TINY = "--preset tiny --max-iters"
TEXTS = [
    Typed(f"minigpt train my.txt {TINY} 30", 0, (
        "Taken as: --data my.txt", "Output: runs/my\n", "Time:   about ",
    )),
    Typed(f"minigpt train diary {TINY} 5", 1, ("diary/old.txt: not utf-8", "--encoding auto")),
    Typed(f"minigpt train diary {TINY} 5 --encoding auto", 0, (
        "Read 3 files", "left out 4: ", "1 .docx", "1 .pdf", "1 .html", "1 empty",
        "Read 1 file as gb18030: old.txt", "For validation, the last 10% of the text: ",
    )),
    Typed("minigpt tokenize --check diary --encoding auto", 0, (
        "diary/cv.docx", "save it as plain text", "diary/empty.txt", "gb18030",
    )),
    Typed("minigpt train diary/cv.docx", 1, ("diary/cv.docx: a Word document",)),
    Typed("minigpt train diary/cv.docx --encoding latin-1", 1, ("a Word document",)),
    Typed("minigpt train diary/scan.pdf --encoding latin-1", 1, ("a PDF document",)),
    Typed(f"minigpt train diary/page.html {TINY} 2", 0, ("its tags are learned too",)),
    Typed("minigpt tokenize crlf.txt", 0, (" 11 ",)),  # the letters, a space and a line feed
    Typed("printf 'Today the heron rests.\\n' >> my.txt", 0),
    Typed("minigpt train --resume runs/my --max-iters 35", 0, (
        "the text has changed", "as it was prepared then", "Resuming runs/my at step 30",
    )),
    Typed("minigpt eval runs/my", 0, ("as it was prepared then", " runs/my ")),
    Typed("minigpt inspect memorized -c runs/my --samples 2", 0, ("Copied verbatim",)),
    Typed("printf 'Zebras, quietly.\\n' >> my.txt", 0),
    Typed("minigpt train --init-from runs/my --data my.txt --max-iters 5", 1, (
        "the model's vocabulary lacks ", "train a new model on both texts",
    )),
]  # fmt: skip
COMMANDS = [
    Typed("minigpt train tiny my.txt --set n_layer=1 --set train.max_iters=1e1", 0, (
        "Taken as: --preset tiny --data my.txt", "taken as model.n_layer", "runs/my-2",
    )),
    Typed("minigpt train my.txt --set layers=3", 2, ("did you mean model.n_layer?",)),
    Typed("minigpt train myy.txt", 2, ("did you mean my.txt?",)),
    Typed("minigpt train runs/my", 2, ("--resume runs/my",)),
    Typed("minigpt train --preset x.yaml", 1, ("presets are TOML files",)),
    Typed("minigpt generate 'The ferryman' -c runs/my -n 20", 0, ("The ferryman",)),
    Typed("minigpt generate -n 20", 0, (
        "Using runs/my-2/checkpoint.safetensors, the newest; ", "minigpt inspect runs",
    )),
    Typed("minigpt generate 'The ferryman' -c runs/my -n 20 --show-probabilities", 0, (
        "50% or more", "under 5%",
    )),
    Typed("minigpt eval diary/jan.txt", 0, (
        "Taken as: --data diary/jan.txt", "diary/jan.txt, whole text",
    )),
    Typed("minigpt inspect diary/jan.txt", 1, ("minigpt inspect surprisal diary/jan.txt",)),
    Typed("minigpt eval rns/my", 1, ("did you mean runs/my?",)),
    Typed("minigpt inspect runs", 0, (" runs/my ", " my.txt ", " 35, finished ", " runs/diary ")),
    Typed("minigpt inspect runs/my runs/my-2", 0, ("model.n_layer",)),
    Typed("minigpt inspect next 'The ferryman' -c runs/my --plot next.svg", 0, ("next.svg",)),
    Typed("minigpt inspect embeddings -c runs/my --plot letters.svg", 0, ("letters.svg",)),
    Typed("minigpt inspect report runs/my", 0, ("runs/my/report.html",)),
    Typed("minigpt train --list-settings", 0, ("train.max_iters", "[above 0]")),
    Typed("minigpt train my.txt --preset small --dry-run", 0, (
        "epochs over the text", "total time",
    )),
]  # fmt: skip


def check(terminal: Terminal, typed: Typed) -> None:
    """Types a line and reads the screen."""
    shown = terminal.run(typed.line)
    joined = re.sub(r"\s+", " ", shown.replace("│", " "))
    for expected in typed.shows:
        assert expected in shown or expected in joined, f"{expected!r} is not in\n{shown}"
    assert "Traceback" not in shown
    assert terminal.run("echo $?").splitlines()[-1] == str(typed.status), shown


def test_texts_and_commands_in_the_order_in_which_people_come_to_them(terminal: Terminal) -> None:
    for typed in [*TEXTS, *COMMANDS]:  # each finds what those before it left behind
        check(terminal, typed)


def test_improvement_is_seen_from_the_beginning(terminal: Terminal) -> None:
    shown = terminal.run("minigpt train diary/jan.txt --preset tiny --max-iters 300 --out seen")
    steps = [
        int(step) for step in re.findall(r"^ +(\d+) +\d\.\d{4} +\d\.\d{4} ", shown, re.MULTILINE)
    ]
    assert len(steps) >= 6
    assert steps[0] <= 50


def test_long_run_on_a_small_text_is_said_and_ctrl_c_answers_at_once(terminal: Terminal) -> None:
    terminal.start("minigpt train my.txt --preset tiny --max-iters 200000 --out long")
    shown = terminal.wait_for(r"(?m)^ +\d[\d,]* +\d\.\d{4} +\d\.\d{4}")
    note = re.sub(r"\s+", " ", shown)
    assert "Note: " in note
    assert "--preset auto" in note
    terminal.send("\x03")
    shown = terminal.finish()
    assert re.search(r"Stopped at step [\d,]+ and saved", shown), shown
    assert not any("tok/s" in line for line in shown.splitlines()[-3:])  # no stale bar
    assert "minigpt train --resume" in shown
    assert terminal.run("echo $?").splitlines()[-1] == "130"


def test_writing_together(terminal: Terminal) -> None:
    check(terminal, Typed(f"minigpt train my.txt {TINY} 5 --out ours", 0))
    terminal.start("minigpt generate -c ours -n 8 --interactive")
    assert "/settings" in terminal.wait_for(r"(?m)^>$")
    terminal.send("The ferryman\n")
    terminal.wait_for(r"(?m)^> The ferryman\nThe ferryman.{8}\n>$")
    terminal.send("/temperature 0.5\n")
    terminal.wait_for(r"temperature 0\.5")
    terminal.send("/flavor 1\n")
    terminal.wait_for("unknown command")
    terminal.send("\x04")
    terminal.finish()
    assert terminal.run("echo $?").splitlines()[-1] == "0"


@pytest.mark.parametrize(
    "command", ["", "train", "generate", "eval", "tokenize", "inspect", "export"]
)
def test_help_fits_the_screen(terminal: Terminal, command: str) -> None:
    shown = terminal.run(f"minigpt {command} --help")
    assert not re.search(r"<\w+>", shown)
    panels = re.findall(r"(?ms)^╭─ (.*?) ─+╮$(.*?)^╰", shown)
    assert panels
    for title, rows in panels:
        assert rows.count("\n") <= 24, title


def test_chinese_text_from_the_first_command(terminal: Terminal, newcomer: Path) -> None:
    check(terminal, Typed(f"minigpt train 小说.txt {TINY} 40", 0, ("Output: runs/小说",)))
    check(terminal, Typed("minigpt generate 今天 -n 12", 0, ("今天",)))
    check(terminal, Typed("minigpt inspect runs", 0, (" runs/小说 ",)))
    check(terminal, Typed("minigpt inspect embeddings --plot 字.svg", 0))
    assert (newcomer / "字.svg").stat().st_size
