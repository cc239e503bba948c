"""What the commands show fits a terminal of 80 columns and 24 lines, and no name is broken."""

import re
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import typer
from rich.cells import cell_len
from rich.console import Console

from minigpt_cli.cli.app import app
from minigpt_cli.cli.inspect.group import VIEWS
from minigpt_cli.cli.render import fit, grid
from minigpt_cli.cli.train_progress import _hanging
from tests.helpers.callers import Minigpt, Program

COMMANDS: list[tuple[str, ...]] = [
    ("train",),
    ("generate",),
    ("eval",),
    ("tokenize",),
    ("inspect",),
]
COMMANDS += [("inspect", view) for view in VIEWS]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_panel_of_help_fits_and_names_no_type_in_brackets(
    minigpt: Minigpt, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    shown = minigpt(*command, "--help").stdout
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    starts = [i for i, line in enumerate(lines) if line.startswith("╭")]
    ends = [i for i, line in enumerate(lines) if line.startswith("╰")]
    assert all(end - start < 24 for start, end in zip(starts, ends, strict=True))
    assert not re.search(r"<(bool|str|int|float|path|list)", shown)
    for line, following in pairwise(lines[: starts[0]]):  # a line ends where the next word is long
        if line.strip() and following.strip():
            assert len(line) + 1 + len(following.split()[0]) >= 80


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_examples_are_one_a_line(minigpt: Minigpt, command: tuple[str, ...]) -> None:
    examples = re.split(r"Examples?:\s+", minigpt(*command, "--help").stdout)[1].strip()
    assert all(line.strip().startswith("minigpt ") for line in examples.splitlines())


def shown_at(width: int, rows: int, columns: int, name: str) -> str:
    table = grid("setting", *(f"{name}{i}" for i in range(columns - 1)), text_columns=columns)
    for row in range(rows):
        table.add_row(f"model.block_size_{row}", *(f"{name}-{row}-{i}" for i in range(columns - 1)))
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(fit(table, width))
    return capture.get()


@pytest.mark.parametrize("width", [44, 80, 120])
@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (3, 3), (3, 9), (30, 9), (1, 30), (9, 4)])
@pytest.mark.parametrize("name", ["a", "runs/shakespeare", "运行结果"])
def test_no_table_breaks_a_name_at_any_width(
    width: int, rows: int, columns: int, name: str
) -> None:
    shown = shown_at(width, rows, columns, name)
    names = [f"{name}-{row}-{i}" for row in range(rows) for i in range(columns - 1)]
    assert all(text in shown for text in names)
    assert all(f"model.block_size_{row}" in shown for row in range(rows))


def test_a_table_of_many_runs_turns_on_its_side() -> None:
    lines = shown_at(80, 2, 9, "runs/number-").splitlines()
    assert any(line.split()[:3] == ["setting", "model.block_size_0", "model.block_size_1"]
               for line in lines)  # fmt: skip
    assert sum("runs/number--0-3" in line for line in lines) == 1


def test_tables_of_commands_break_no_name_at_80_columns(program: Program, home: Path) -> None:
    long = "shakespeare-with-dropout-and-a-long-name"
    for i in range(6):
        shutil.copytree(home / "runs" / "tiny", home / "runs" / f"{long}-{i}")
    runs = [f"runs/{long}-{i}" for i in range(6)]
    for command in (("inspect", "runs"), ("inspect", *runs), ("eval", *runs)):
        result = program(*command, COLUMNS="80")
        assert result.returncode == 0
        assert all(run in result.stdout for run in runs), result.stdout


def test_list_of_runs_says_name_text_size_loss_when_and_whether_finished(program: Program) -> None:
    shown = program("inspect", "runs", COLUMNS="80").stdout
    header, row = (line for line in shown.splitlines() if line.strip(" ─"))
    assert header.split() == ["run", "text", "size", "best", "loss", "steps", "updated"]
    assert re.fullmatch(
        r" runs/tiny  story\.txt +[\d.]+ k +\d\.\d{4} +20, finished +\d{4}-\d\d-\d\d \d\d:\d\d ?",
        row,
    )


@pytest.mark.parametrize("name", ["a", "shakespeare-on-two-lines", "运行结果"])
def test_ten_runs_take_ten_lines_at_80_columns(program: Program, home: Path, name: str) -> None:
    for i in range(9):
        shutil.copytree(home / "runs" / "tiny", home / "runs" / f"{name}-{i}")
        config = home / "runs" / f"{name}-{i}" / "config.toml"
        config.write_text(config.read_text().replace("max_iters = 20", "max_iters = 20000"))
    lines = program("inspect", "runs", COLUMNS="80").stdout.splitlines()
    rows = [line for line in lines if "runs/" in line]
    assert len(rows) == 10
    assert all("20 of 20,000" in row for row in rows if f"runs/{name}-" in row)
    assert max(map(cell_len, lines)) <= 80


def test_lines_of_the_header_hang_below_their_value() -> None:
    lines = [
        "Text:   " + "words that go on " * 9,
        " " * 8 + "more of them " * 9,
        "文本：  一二三四" * 9,
    ]
    for line in lines:
        shown = [part.plain for part in _hanging(line, 40)]
        head = re.match(r"\s*[^\s:：]*[:：]\s*|\s+", line)
        assert head
        indent = " " * cell_len(head[0])
        assert shown[0].startswith(head[0])
        assert all(part.startswith(indent) and part[len(indent)] != " " for part in shown[1:])
        assert max(map(cell_len, shown)) <= 40
        assert "".join("".join(shown).split()) == "".join(line.split())


def test_errors_are_wrapped_between_words_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from minigpt_cli.cli import console

    terminal = Console(width=40, force_terminal=True, color_system=None, highlight=False)
    monkeypatch.setattr(console, "err", terminal)
    words = "the configuration names a setting that cannot be understood anywhere"
    with terminal.capture() as capture:
        console.print_error(words)
        console.print_note(words)
    lines = capture.get().splitlines()
    assert set(" ".join(lines).split()) <= {"error:", *words.split()}
    assert max(map(len, lines)) <= 40


def test_flags_show_no_value() -> None:
    command = typer.main.get_command(app)
    context = typer.Context(command)
    train = command.get_command(context, "train")  # type: ignore[attr-defined]
    flags = [p for p in train.get_params(context) if getattr(p, "is_flag", False)]
    assert flags
    assert all(flag.metavar == "" for flag in flags)
