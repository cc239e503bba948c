"""What a Chinese user reads, as the program prints it."""

import re

import pytest
from rich.cells import cell_len
from rich.text import Text

from minigpt_cli.cli.console import line_breaks
from minigpt_cli.cli.render import fit, grid
from tests.helpers.callers import Program

CHINESE = {"MINIGPT_LANG": "zh_CN", "COLUMNS": "80"}


def test_help_is_whole_and_plain(program: Program) -> None:
    result = program("train", "--help", **CHINESE)
    shown = re.sub(r"[│\s]", "", result.stdout)
    assert (
        "已知语料、文件或文件夹，或用-表示标准输入；可重复（名称=权重）。[默认：(shakespeare)]"
        in shown
    )
    assert "用一段文本训练模型" in shown
    assert "…" not in shown


def test_a_command_its_notes_and_its_errors(program: Program) -> None:
    result = program("eval", "runs/tiny", "--quantize", "int8", **CHINESE)
    assert "困惑度" in result.stdout
    assert "runs/tiny/checkpoint.safetensors：int8 使损失变化" in result.stderr
    result = program("eval", "nowhere", **CHINESE)
    assert result.returncode == 1
    assert result.stderr.startswith("错误：nowhere：没有这个文件")
    result = program("train", "--batch-size", "x", **CHINESE)
    assert result.returncode == 2
    assert "'--batch-size': 'x' 不是整数" in result.stderr
    assert result.stderr.startswith("用法：minigpt train")
    result = program("export", "runs/tiny", "x.gguf", **CHINESE)
    assert "缺少选项 '--to'，可选：html, hf, gguf, peft" in re.sub(r",\s+", ", ", result.stderr)


def test_json_is_the_same_in_all_languages(program: Program) -> None:
    command = ("inspect", "runs/tiny/checkpoint.safetensors", "--json")
    english, chinese = program(*command), program(*command, **CHINESE)
    assert english.stdout == chinese.stdout != ""


@pytest.mark.parametrize("width", [20, 37, 80])
def test_a_chinese_line_is_broken_between_characters_and_not_inside_words(width: int) -> None:
    text = (
        "错误：char 分词器不认识 '鼠'（U+9F20）；请删去它，或用 --tokenizer bpe，它能编码任何字符"
    )
    lines = [line.plain.rstrip() for line in Text(text).divide(line_breaks(text, width))]
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(width - 14 < cell_len(line) <= width for line in lines[:-1])
    assert all("--tokenizer" in line or "token" not in line for line in lines)
    assert not any(line[0] in "，；：）" for line in lines)


def test_a_chinese_table_is_not_turned_while_its_prose_can_be_folded() -> None:
    table = grid("段落", "行", prose=[0])
    table.add_row("老船夫数着纸船，我也一样。" * 5, "1")
    assert fit(table, 80) is table
