"""Durations have units, in one format; samples end where a line or a word does."""

import pytest

from minigpt_cli.io.text import duration, ended, three_digits


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0 ms"),
        (0.12, "120 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (24.5, "24.5 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (1903, "31 min 43 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (3720, "1 h 02 min"),
        (1e8, "27,777 h 47 min"),
    ],
)
def test_duration_names_its_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("ROMEO:\nBut soft, what li", "ROMEO:\nBut soft, what …"),
        ("ROMEO:\nBut soft,\nwhat li", "ROMEO:\nBut soft,"),
        ("ROMEO:\nBut soft,\nwhat light\n", "ROMEO:\nBut soft,\nwhat light"),
        (
            "a\nand then a very long line without its e",
            "a\nand then a very long line without its …",
        ),
        ("\n\nfirst wor", "\n\nfirst …"),
        ("话说宝玉", "话说宝玉 …"),
        ("word", "word …"),
    ],
)
def test_sample_ends_at_a_line_or_a_word(text: str, kept: str) -> None:
    assert ended(text) == kept


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0.3349, "0.335"), (3.06, "3.06"), (99.96, "100"), (1063.71, "1,064"), (17729.0, "17,729")],
)
def test_numbers_have_about_three_digits_and_no_exponent(number: float, shown: str) -> None:
    assert three_digits(number) == shown
