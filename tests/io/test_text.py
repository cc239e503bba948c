"""Text from outside cannot control a terminal."""

from hypothesis import example, given
from hypothesis import strategies as st

from minigpt_cli.io.text import printable

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
