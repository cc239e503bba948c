"""README and guides, followed from top to bottom as a reader would, with small models and texts."""

import contextlib
import hashlib
import io
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import polib
import pytest
from typer.testing import CliRunner

from minigpt_cli.cli.app import app
from minigpt_cli.training.learner import Learner

ROOT = Path(__file__).parents[1]
ENGLISH, CHINESE = ROOT / "docs" / "guide.md", ROOT / "docs" / "guide.zh.md"
README, COMMANDS = ROOT / "README.md", ROOT / "docs" / "commands.md"
CHINESE_README = ROOT / "README.zh.md"
CATALOG = ROOT / "minigpt_cli" / "languages" / "zh_CN.po"
PAGES = pytest.mark.parametrize("page", [ENGLISH, CHINESE], ids=lambda page: page.name)

SHORT: dict[str, list[str]] = {
    "train": shlex.split(
        "--max-iters 4 --batch-size 2 --precision fp32 --set train.eval_interval=2 "
        "--set train.eval_tokens=256 --set train.log_interval=1 --set train.sample_tokens=8 "
        "--set model.n_embd=48 --set model.block_size=32 --device cpu"
    ),
    "generate": ["--max-new-tokens", "8"],
}
"""What makes a command of the guide quick; the last of two alike options counts."""

PICTURES = {"attention_pattern.png", "embeddings.png", "loss_curve.png"}
"""Those that the guide this one grew from asks its readers for."""

HEAD = r"[a-z/]+( [a-z/]+)*( [\d.]+)?"
"""A column's head in a table: words, perhaps with a number."""

LOSS = r"loss\s+is\s+nan"
"""Which of the two becomes NaN first depends on how the machine rounds."""

OWN = ("It writes", "It copies", "Marry, sir")
"""Beginnings of lines that need the guide's own text, and its long training."""


@dataclass(frozen=True)
class Step:
    """Something that the reader types, and what the page shows that it prints."""

    kind: Literal["shell", "python"]
    text: str
    shown: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        if "^C" in self.shown:
            return 130
        return int(any(line.startswith("error: ") for line in self.shown))


def blocks(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Fenced blocks by their language, and every line outside them as a block called `text`."""
    language: str | None = None
    block: list[str] = []
    for line in page.read_text(encoding="utf-8").splitlines():
        if language is None and not line.startswith("```"):
            yield "text", [line]
        elif language is None:
            language, block = line.removeprefix("```"), []
        elif line == "```":
            yield language, block
            language = None
        else:
            block.append(line)
    assert language is None, f"{page.name}: a block is not closed"


def steps(page: Path) -> list[Step]:
    """All that the page asks the reader to type, in order."""
    found: list[Step] = []
    command = ""
    for language, block in blocks(page):
        if language == "python":
            found.append(Step("python", "\n".join(block)))
        elif language == "text" and (typed := re.match("    (?:python3 .* && )?(.*)", block[0])):
            if not re.match("(cat .*)?minigpt ", typed[1]):
                continue
            command = typed[1]
            found.append(Step("shell", command))
        elif language == "text":
            # A table whose rows begin with options varies the command before it.
            if options := re.match(r"\| `(--[^`]+)` \|", block[0]):
                found.append(Step("shell", f"{command} {options[1]}"))
        else:
            for part in re.split(r"^\$ ", "\n".join(block), flags=re.MULTILINE)[1:]:
                command, *shown = part.rstrip("\n").split("\n")
                found.append(Step("shell", command, tuple(shown)))
    return found


def landmarks(step: Step) -> list[str]:
    """Patterns of those shown lines that do not depend on text and chance.

    Heads of tables, of which columns may be cut, and what lines that begin at the margin say
    first, up to a number or a name; every number stands for any. Samples are indented more.
    """
    if step.text.startswith("minigpt generate") and not step.exit_code:
        return []
    found = []
    for line in step.shown:
        columns = re.split(r"\s{2,}", line.strip())
        beginning = re.match(r"[A-Za-z][A-Za-z :/-]*", columns[0])
        if len(columns) > 2 and all(re.fullmatch(HEAD, column) for column in columns):
            found.append(".*".join(map(any_number, columns)))
        elif line.startswith("   ") or line.startswith(OWN):
            continue
        elif beginning and re.search("[a-z]{3}", beginning[0]):
            found.append(r"\b" + any_number(beginning[0].strip()))
    return [mark.replace(LOSS, r"(loss|gradient\s+norm)\s+is\s+nan") for mark in found]


def any_number(text: str) -> str:
    """A pattern of the text with any numbers in it, wrapped at any space."""
    return r"[\d.,]+".join(map(re.escape, re.split(r"\d[\d.,]*", text))).replace(r"\ ", r"\s+")


def missing(step: Step, printed: str) -> list[str]:
    """What the page shows and the step did not print."""
    found = [mark for mark in landmarks(step) if not re.search(mark, printed, re.MULTILINE)]
    said = as_commented(step.text)
    return found + [said] * (bool(said) and printed != said)


def call(step: Step) -> tuple[int, str]:
    """Runs one step; commands in this process, and shortened unless they are meant to fail."""
    if step.kind == "python":
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(step.text, "guide", "exec"), {})
        return 0, printed.getvalue()
    if not step.text.startswith("minigpt ") or re.search("[|>]", step.text):
        command = re.sub(r"\bminigpt ", f"{shlex.quote(sys.executable)} -m minigpt_cli ", step.text)
        done = subprocess.run(command, shell=True, capture_output=True, encoding="utf-8")
        return done.returncode, done.stdout + done.stderr
    arguments = shlex.split(step.text, comments=True)[1:]
    if step.exit_code != 1 and "--resume" not in arguments:
        arguments += SHORT.get(arguments[0], [])
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    return result.exit_code, result.output


def as_commented(snippet: str) -> str:
    """What a snippet says in its comments that it prints."""
    lines = re.findall(r"^(?:print\(.*\)  )?# (.*)$", snippet, flags=re.MULTILINE)
    return "".join(f"{line}\n" for line in lines)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_measuring: None) -> Path:
    """An empty folder, where texts of our own are known as `shakespeare` and `lunyu` already."""
    names = ("ROMEO", "JULIET", "NURSE", "First Watchman", "QUEEN MAB")
    lines = ("To be, or not to be", "My lord, the quick fox jumps", "But soft", "Hark; away we go")
    ends = ("and so good night!", "is it thy will?", "for the lazy, vexed dog.", "upon the hour.")
    scene = "".join(
        f"{name}:\n{line}, {end}\n\n" for name, line, end in product(names, lines, ends)
    )
    play = (8 * scene).encode()
    desk = tmp_path / "desk"
    sayings = "".join(
        f"子曰：“{word}而不{other}，何也？”\n" for word in "学思行问" for other in "知乐倦"
    )
    known(desk, "shakespeare", "input.txt", play)
    known(desk, "lunyu", "lunyu.txt", (20 * sayings).encode())
    monkeypatch.setattr(
        "minigpt_cli.data.corpora.corpus.shipped_folder", lambda name: tmp_path / "cards" / name
    )
    who, does = ("宝玉", "船夫", "老人", "孩子"), ("看见", "数着", "忘了", "画出")
    what = ("三只纸船", "河上的灯", "远处的桥", "慢慢的潮水")
    novel = "".join(f"{a}{b}{c}。\n" for a, b, c in product(who, does, what))
    (desk / "hongloumeng.txt").write_text(20 * novel, encoding="utf-8")
    (desk / "my-diary.txt").write_text(scene, encoding="utf-8")
    (desk / "scene.txt").write_text("ROMEO:\nBut soft", encoding="utf-8")
    (desk / "prompts.txt").write_text("ROMEO:\nJULIET:\n", encoding="utf-8")
    monkeypatch.chdir(desk)
    monkeypatch.setenv("COLUMNS", "90")  # as wide as the page shows it
    return desk


def known(desk: Path, name: str, file: str, text: bytes) -> None:
    """Puts a text of our own where a known corpus is kept, with a card that fits it."""
    card = (ROOT / "data" / f"{name}.toml").read_text(encoding="utf-8")
    sha256 = f'sha256 = "{hashlib.sha256(text).hexdigest()}"'
    card = re.sub(r"^sha256 = .*", sha256, card, count=1, flags=re.MULTILINE)
    cards, folder = desk.parent / "cards" / "data", desk / "data" / name
    cards.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True)
    (cards / f"{name}.toml").write_text(card, encoding="utf-8")
    (folder / file).write_bytes(text)


@pytest.fixture
def interrupts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Presses Ctrl-C after so many more training steps, once, when it holds a number."""
    waiting: list[int] = []
    take_step = Learner.take_step

    def step(self: Learner, number: int) -> Any:
        if waiting:
            waiting[0] -= 1
            if waiting[0] == 0:
                waiting.clear()
                signal.raise_signal(signal.SIGINT)
        return take_step(self, number)

    monkeypatch.setattr(Learner, "take_step", step)
    return waiting


@pytest.mark.parametrize(
    "page",
    [README, COMMANDS, pytest.param(ENGLISH, marks=pytest.mark.slow)],
    ids=lambda page: page.name,
)
def test_reader_who_types_all_that_a_page_says_sees_what_it_shows(
    page: Path, desk: Path, interrupts: list[int]
) -> None:
    problems = []
    for step in steps(page):
        interrupts[:] = [2] if step.exit_code == 130 else []
        exit_code, printed = call(step)
        if exit_code != step.exit_code or missing(step, printed):
            problems.append(
                f"{step.text}\nexit code {exit_code}, misses {missing(step, printed)}\n{printed}"
            )
    assert not problems, "\n\n".join(problems)
    if page == ENGLISH:
        assert {path.name for path in desk.iterdir()} >= PICTURES


def test_both_languages_type_and_show_the_same() -> None:
    assert steps(CHINESE) == steps(ENGLISH)
    assert len(steps(ENGLISH)) > 40


def test_readme_in_chinese_types_the_same() -> None:
    assert [step.text for step in steps(CHINESE_README)] == [step.text for step in steps(README)]
    for page, other in ((README, CHINESE_README), (CHINESE_README, README)):
        assert f"]({other.name})" in page.read_text(encoding="utf-8")[:200]


def test_readme_in_chinese_shows_what_the_program_says() -> None:
    said = [message.msgstr for message in polib.pofile(CATALOG.read_text(encoding="utf-8"))]
    labels = {
        re.split(r"\s{2,}|：| [a-z]", line.strip())[0]
        for language, block in blocks(CHINESE_README)
        for line in (block if language in ("text", "console") and len(block) > 1 else [])
        if re.match(r"\s{,8}[\u4e00-\u9fff]", line)
    }
    assert len(labels) > 30
    assert [label for label in labels if not any(label in text for text in said)] == []


@PAGES
def test_no_command_hides_in_the_running_text(page: Path) -> None:
    """Where it would not be run; a command's name alone is no command."""
    for language, block in blocks(page):
        if language == "text":
            for code in re.findall(r"`([^`]+)`", block[0]):
                assert not re.match(r"minigpt \w+ -?\w", code), code


@PAGES
def test_every_picture_and_page_that_the_guide_names_is_made_by_a_command(page: Path) -> None:
    typed = "\n".join(step.text for step in steps(page))
    named = re.findall(r"`([\w.-]+\.(?:png|svg|html))`", page.read_text(encoding="utf-8"))
    assert set(named) >= PICTURES
    for name in {*named} - {"report.html"}:  # that one is named by the program
        assert name in typed


LINKED = [ENGLISH, CHINESE, *sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", [*dict.fromkeys(LINKED)], ids=lambda page: page.name)
def test_every_link_between_the_pages_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            linked = page.parent / path if path else page
            assert linked.exists(), f"{page.name} links to {target}"
            assert not anchor or anchor in anchors(linked), f"{page.name} links to {target}"


def anchors(page: Path) -> set[str]:
    """Those that a forge gives a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@PAGES
def test_first_lines_lead_to_the_other_language(page: Path) -> None:
    other = {ENGLISH: CHINESE, CHINESE: ENGLISH}[page]
    beginning = page.read_text(encoding="utf-8").splitlines()[:4]
    assert any(f"]({other.name})" in line for line in beginning)


FILES = (".txt", ".png", ".html", ".toml", ".jsonl", ".safetensors")


@PAGES
def test_every_file_and_name_of_the_source_that_the_guide_mentions_is_there(page: Path) -> None:
    package = ROOT / "minigpt_cli"
    source = "\n".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    for code in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")):
        if re.fullmatch(r"[\w/]+\.py", code):
            assert (package / code).is_file(), code
        elif re.fullmatch(r"[A-Z][a-z]+[A-Z]\w+|\w+\.\w+|[a-z]+_[a-z_]+", code):
            # A class, a method of one, a function; settings too, which are `section.key`.
            for name in code.split("."):
                assert code.endswith(FILES) or re.search(rf"\b{name}\b", source), code
