"""A newcomer's folder: a text of their own, a diary of odd files, and a terminal to type in."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.terminal import Terminal

WORD = "word/document.xml", "[Content_Types].xml"
"""Files that make a zip archive a Word document."""


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory, story: str) -> Path:
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / "my.txt").write_text(story, encoding="utf-8")
    (folder / "crlf.txt").write_bytes(b"one line\r\nand two\r\n" * 30)
    (folder / "小说.txt").write_text(
        "今天下雨，河水涨了。\n明天也许放晴。\n" * 60, encoding="utf-8"
    )
    _write_diary(folder / "diary", story)
    return folder


def _write_diary(diary: Path, text: str) -> None:
    """A folder of two texts and of files that are none, or are written otherwise."""
    diary.mkdir()
    (diary / "jan.txt").write_text(text, encoding="utf-8")
    (diary / "feb.txt").write_text(text[:900], encoding="utf-8")
    (diary / "old.txt").write_bytes("今天天气很好。\n".encode("gb18030") * 20)
    (diary / "empty.txt").touch()
    (diary / "page.html").write_text("<p>The old heron counts.</p>\n" * 40, encoding="utf-8")
    (diary / "scan.pdf").write_bytes(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n" + bytes(range(256)))
    with zipfile.ZipFile(diary / "cv.docx", "w") as archive:
        for name in WORD:
            archive.writestr(name, "<w/>")


@pytest.fixture(scope="module")
def chinese_newcomer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same things, for one who reads and writes Chinese."""
    folder = tmp_path_factory.mktemp("chinese")
    text = "今天下雨，河水涨了。\n老船夫数着纸船，我也一样。\n\n明天也许放晴。\n" * 60
    (folder / "小说.txt").write_text(text, encoding="utf-8")
    _write_diary(folder / "日记", text)
    return folder


@pytest.fixture(scope="module")
def terminal(newcomer: Path) -> Iterator[Terminal]:
    with Terminal(newcomer) as opened:
        yield opened
