"""The first hour of a newcomer whose language is Chinese: what is shown is Chinese, and whole.

The screen is wider than the 80 columns that the program is told, so that a line that does not fit
them is seen, and not wrapped.
"""

import re
import string
import sys
from collections.abc import Iterator
from pathlib import Path

import polib
import pytest
from rich.cells import cell_len

from tests.first_hour.test_first_hour import Typed
from tests.helpers.messages import CATALOGS
from tests.helpers.terminal import Terminal

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal"),
]

COLUMNS = 80
TINY = "--preset tiny --max-iters"
TYPED = [
    Typed(f"minigpt train 小说.txt {TINY} 20", 0, (
        "理解为：--data 小说.txt", "输出：runs/小说", "最佳验证损失", "接下来：",
        "minigpt generate --checkpoint 'runs/小说'",
    )),
    Typed(f"minigpt train 日记 {TINY} 5", 1, (
        "错误：日记/old.txt：不是 utf-8 编码：第 0 字节", "（用 --encoding auto 设置）",
    )),
    Typed(f"minigpt train 日记 {TINY} 5 --encoding auto", 0, (
        "读入 3 个文件", "未读入 4 个：", ".docx 1 个", "空文件 1 个",
        "读入 1 个文件，编码为 gb18030：old.txt", "用于验证的是文本的最后 10%",
    )),
    Typed("minigpt tokenize --check 日记 --encoding auto", 0, (
        "不是纯文本；请先另存为纯文本（.txt）", "是空的", "重复的段落",
    )),
    Typed("minigpt train 日记/cv.docx", 1, ("日记/cv.docx：Word 文档，不是纯文本",)),
    Typed("minigpt train 小说.txt --set layers=3", 2, ("是否想写 model.n_layer？",)),
    Typed("minigpt train 小说.tx", 2, ("没有这个文件、文件夹或预设；是否想用 小说.txt？",)),
    Typed("minigpt train --resume runs/小说", 1, (
        "runs/小说：已在第 20 步完成；要继续训练，请提高 train.max_iters",
    )),
    Typed("minigpt eval runs/小说", 0, ("困惑度", "验证部分")),
    Typed("minigpt generate 今天 -c runs/小说 -n 20", 0, ("今天",)),
    Typed("minigpt inspect runs", 0, ("runs/小说", "20，已完成")),
    Typed("minigpt train --list-settings", 0, ("train.max_iters", "[大于 0]")),
    Typed("minigpt train 小说.txt --preset small --dry-run", 0, ("总用时", "训练轮数")),
    Typed("minigpt train --help", 0, ("用一段文本训练模型",)),
]  # fmt: skip


@pytest.fixture(scope="module")
def chinese_terminal(chinese_newcomer: Path) -> Iterator[Terminal]:
    told = {"MINIGPT_LANG": "zh_CN", "COLUMNS": str(COLUMNS)}
    with Terminal(chinese_newcomer, columns=COLUMNS + 40, **told) as opened:
        yield opened


@pytest.fixture(scope="module")
def english() -> list[re.Pattern[str]]:
    """The parts of English messages that have more than three words."""
    parts = set()
    for entry in polib.pofile(CATALOGS[0].read_text(encoding="utf-8")):
        for message in filter(None, (entry.msgid, entry.msgid_plural)):
            try:
                literals = [literal for literal, *_field in string.Formatter().parse(message)]
            except ValueError:  # not a format
                literals = [message]
            parts |= {" ".join(part.split()) for part in literals if len(part.split()) > 3}
    assert len(parts) > 500
    return [re.compile(re.escape(part)) for part in parts]


def test_what_is_shown_is_chinese_and_fits(
    chinese_terminal: Terminal, english: list[re.Pattern[str]]
) -> None:
    for typed in TYPED:  # each finds what those before it left behind
        check(typed, chinese_terminal, english)


def check(typed: Typed, terminal: Terminal, english: list[re.Pattern[str]]) -> None:
    _line, *lines = terminal.run(f"COLUMNS={COLUMNS} {typed.line}").splitlines()
    shown = "\n".join(lines)
    together = re.sub(r"[│\s]", "", shown)
    for expected in typed.shows:
        assert expected.replace(" ", "") in together, f"{expected!r} is not in\n{shown}"
    assert [line for line in lines if cell_len(line) > COLUMNS] == []
    assert "Traceback" not in shown
    assert "…" not in shown.replace(" …\n", "\n")  # only a sample is cut off
    joined = re.sub(r"\s+", " ", shown.replace("│", " "))
    assert [part.pattern for part in english if part.search(joined)] == []
    assert re.findall(r"\b[a-z]+(?: [a-z]+){3}\b", shown) == []
    assert terminal.run("echo $?").splitlines()[-1] == str(typed.status), shown
