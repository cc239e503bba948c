"""What a Chinese user reads, as the program prints it."""

import re

from tests.helpers.callers import Program

CHINESE = {"MINIGPT_LANG": "zh_CN", "COLUMNS": "80"}


def test_help_is_whole_and_plain(program: Program) -> None:
    result = program("train", "--help", **CHINESE)
    shown = re.sub(r"[│\s]", "", result.stdout)
    assert "--data-dTEXT已知语料、文件或文件夹；可重复。[默认：(shakespeare)]" in shown
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


def test_json_is_the_same_in_all_languages(program: Program) -> None:
    command = ("inspect", "runs/tiny/checkpoint.safetensors", "--json")
    english, chinese = program(*command), program(*command, **CHINESE)
    assert english.stdout == chinese.stdout != ""
