"""Text from outside cannot control a terminal."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minigpt_cli.io.text import printable, printable_json, printable_line

C0_AND_C1 = [chr(i) for i in (*range(0x20), *range(0x7F, 0xA0))]


def test_control_characters_and_surrogates_become_escapes() -> None:
    assert printable("\x1b[2J\x07\r\x9b\x7f\ud800") == r"\x1b[2J\x07\r\x9b\x7f\ud800"


def test_tabs_line_feeds_and_all_scripts_stay_as_they_are() -> None:
    text = "a\tb\n[red]你é👋\u3000\\x1b"
    assert printable(text) == text


@given(st.text(st.characters() | st.sampled_from([*C0_AND_C1, "\udfff"])))
@example("".join(C0_AND_C1))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = printable(text)
    assert not {*shown} & ({*C0_AND_C1} - {"\t", "\n"})
    shown.encode()


@pytest.mark.parametrize("mark", [chr(i) for i in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))])
def test_marks_that_reverse_a_line_are_escaped(mark: str) -> None:
    assert printable(f"a{mark}b") == f"a\\u{ord(mark):04x}b"
    assert printable_json(f'"{mark}"') == f'"\\u{ord(mark):04x}"'


def test_line_separators_and_line_feeds_make_no_line() -> None:
    assert printable_line("a\u2028b\u2029c\x85d\ne\tf") == r"a\u2028b\u2029c\x85d\ne" + "\tf"


def test_marks_that_right_to_left_scripts_need_are_kept() -> None:
    assert printable("שלום\u200f, مرحبا\u061c\u200e") == "שלום\u200f, مرحبا\u061c\u200e"
