"""How tokens are shown."""

import pytest

from minigpt_cli.inspection.tokens import token_text, visible
from minigpt_cli.tokenizer.byte import ByteTokenizer
from minigpt_cli.tokenizer.char import CharTokenizer


@pytest.mark.parametrize(
    ("token", "shown"),
    [(" ", "␣"), ("\n", "↵"), ("\t", "⇥"), ("\x1b[2J", r"\x1b[2J"), (" the\r\n", r"␣the\r↵"),
     ("你é'\\[b]", "你é'\\[b]"), ("\u3000\u200b", r"\u3000\u200b"), ("\ud800", r"\ud800")],
)  # fmt: skip
def test_white_space_and_control_characters_are_visible(token: str, shown: str) -> None:
    assert visible(token) == shown


def test_a_byte_of_an_incomplete_character_is_escaped() -> None:
    tokenizer = ByteTokenizer()
    assert [token_text(tokenizer, i) for i in "é!".encode()] == [r"\xc3", r"\xa9", "!"]
    assert token_text(CharTokenizer("é"), 0) == "é"
