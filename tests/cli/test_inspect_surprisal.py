"""`minigpt inspect surprisal`: its table, its colors, its page."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from minigpt_cli.inspection.surprisal import Surprisal, surprisal
from minigpt_cli.runs.checkpoint import load_checkpoint
from tests.helpers.callers import Minigpt, Misused, Program, Refused

RUN = "runs/tiny"
PAGE = "page.html"


@pytest.fixture
def text(home: Path, story: str) -> str:
    """A text with a line that is odd, in `mine.txt`."""
    lines = story[:1500].splitlines()
    lines.insert(20, "ATM" * 25)
    (home / "mine.txt").write_text("\n".join(lines), encoding="utf-8")
    return "\n".join(lines)


def measured(text: str) -> Surprisal:
    loaded = load_checkpoint(Path(RUN, "checkpoint.safetensors"))
    return surprisal(loaded.model, loaded.tokenizer, text)


def test_table_holds_the_hardest_passages_with_their_lines(minigpt: Minigpt, text: str) -> None:
    result = minigpt("inspect", "surprisal", "-c", RUN, "mine.txt")
    found = measured(text)
    assert "\x1b" not in result.stdout
    assert f"{found.bits_per_byte:.4f} ({round(found.bits):,} bits total)" in result.stdout
    assert f"the hardest of {found.passages} passages" in result.stdout
    rows = re.findall(r" (\d+) +(\d+\.\d\d) +('.+') (\d+\.\d)", result.stdout)
    assert rows == [
        (
            str(passage.line),
            f"{passage.bits_per_byte:.2f}",
            repr(passage.hardest.text),
            f"{passage.hardest.bits:.1f}",
        )
        for passage in found.hardest[:10]
    ]
    assert "ATMATM" in result.stdout


def test_json_holds_every_token_and_passage(minigpt: Minigpt, text: str) -> None:
    result = json.loads(minigpt("inspect", "surprisal", "-c", RUN, "mine.txt", "--json").stdout)
    found = measured(text)
    assert result["bits"] == found.bits
    assert "".join(part["text"] for part in result["beginning"]) == text
    assert [part["bits"] for part in result["beginning"]] == [p.bits for p in found.beginning]
    assert [p["line"] for p in result["hardest"]] == [p.line for p in found.hardest]


def test_terminal_shows_a_bounded_part_in_colors(program: Program, home: Path, story: str) -> None:
    text = story * 3
    (home / "long.txt").write_text(text, encoding="utf-8")
    options = {"FORCE_COLOR": "1", "COLORTERM": "truecolor", "PYTHONUTF8": "1"}
    shown = program("inspect", "surprisal", "-c", RUN, "long.txt", **options).stdout
    assert len(set(re.findall(r"48;2;\d+;\d+;\d+", shown))) >= 3
    assert "bits per token" in shown
    assert text[:2900] in re.sub(r"\x1b\[[\d;]*m|↵", "", shown)
    assert f"The first 3,000 of {len(text):,} characters." in shown
    assert len(shown.splitlines()) < 120


def test_terminal_without_colors_gets_the_table_alone(program: Program, text: str) -> None:
    options = {"FORCE_COLOR": "1", "NO_COLOR": "1", "PYTHONUTF8": "1"}
    shown = program("inspect", "surprisal", "-c", RUN, "mine.txt", **options).stdout
    assert "48;" not in shown
    assert "bits per token" not in shown
    assert "the hardest of" in shown


class Page(HTMLParser):
    """What a browser would make of a page: texts, titles, and whatever it would fetch."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.title, self.texts, self.headings = "", list[list[tuple[str, str]]](), list[str]()
        self.links: list[str] = []
        self._tags: list[tuple[str, dict[str, Any]]] = []
        self.feed(source)
        assert not self._tags

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [str(found[name]) for name in ("src", "href") if name in found]
        if tag not in ("meta", "link"):
            self._tags.append((tag, found))
        if tag == "div" and found.get("class") == "text":
            self.texts.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self._tags.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if not self._tags:
            return
        tag, attributes = self._tags[-1]
        if tag == "title":
            self.title += data
        elif tag == "h2":
            self.headings.append(data)
        elif tag == "span" and "title" in attributes:
            self.texts[-1].append((data, attributes["title"]))


def page_of(minigpt: Minigpt, file: str) -> Page:
    result = minigpt("inspect", "surprisal", "-c", RUN, file, "--html", PAGE)
    assert result.exit_code == 0, result.output
    return Page(Path(PAGE).read_text(encoding="utf-8"))


def test_page_needs_nothing_but_itself(minigpt: Minigpt, text: str) -> None:
    page = page_of(minigpt, "mine.txt")
    source = Path(PAGE).read_text(encoding="utf-8")
    assert page.links == ["data:,"]
    assert not re.search(r"https?:|@import|<script|url\(", source)
    assert 'name="viewport"' in source
    assert "prefers-color-scheme: dark" in source


def test_page_has_the_hardest_passages_first_and_then_the_text(minigpt: Minigpt, text: str) -> None:
    page, found = page_of(minigpt, "mine.txt"), measured(text)
    assert page.title == f"What {RUN} finds hard in mine.txt"
    assert page.headings == [f"The hardest of {found.passages} passages", "The text"]
    assert len(page.texts) == len(found.hardest) + 1
    assert "ATMATM" in "".join(data for data, _ in page.texts[0])
    assert page.texts[0] != page.texts[-1]
    whole = page.texts[-1]
    assert "".join(data for data, _ in whole).replace("↵", "") == text
    assert [title for _, title in whole] == [
        "not predicted" if part.bits is None else f"{part.bits:.1f} bits"
        for part in found.beginning
    ]


def test_page_shows_markup_of_a_text_as_text(minigpt: Minigpt, home: Path) -> None:
    train = ["train", "--preset", "tiny", "--data", "odd.txt", "--max-iters", 1, "--device", "cpu"]
    odd = "</div><script>alert(1)</script> & [red]\x1b[2J\r\nnext\r\n" * 20
    (home / "odd.txt").write_text(odd, encoding="utf-8", newline="")
    assert minigpt(*train, "--out", "runs/odd", "--set", "train.sample_tokens=0").exit_code == 0
    result = minigpt("inspect", "surprisal", "-c", "runs/odd", "odd.txt", "--html", PAGE)
    whole = Page(Path(PAGE).read_text(encoding="utf-8")).texts[-1]
    shown = "".join(data for data, _ in whole).replace("↵", "")
    assert shown == odd.replace("\r", "").replace("\x1b", "\\x1b")
    assert "[red]\\x1b[2J" in result.stdout
    assert "\x1b" not in result.stdout + Path(PAGE).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has 0 tokens and needs at least 2"),
        ("Ω is new".encode(), "'Ω' (U+03A9)"),
        (b"caf\xe9", "not utf-8: byte 3 (0xe9) is not part of any character"),
        (None, "bad.txt: no such file or folder"),
    ],
)
def test_text_that_cannot_be_read_is_refused(
    refused: Refused, home: Path, content: bytes | None, said: str
) -> None:
    if content is not None:
        (home / "bad.txt").write_bytes(content)
    assert said in refused("inspect", "surprisal", "-c", RUN, "bad.txt", "--html", PAGE)
    assert not Path(PAGE).exists()


def test_other_encodings_can_be_named(minigpt: Minigpt, home: Path, story: str) -> None:
    (home / "wide.txt").write_text(story, encoding="utf-16")
    options = ("wide.txt", "--encoding", "utf-16", "--json")
    found = json.loads(minigpt("inspect", "surprisal", *options).stdout)
    assert found["bits"] == measured(story).bits


def test_picture_is_a_usage_error(misused: Misused, text: str) -> None:
    assert "--plot" in misused("inspect", "surprisal", "mine.txt", "--plot", "x.png")
