"""What `generate` shows besides the text, and how a session is led."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from minigpt_cli.cli import writing
from minigpt_cli.cli.writing import SHADE_NAMES, SHADES
from tests.helpers.callers import Minigpt

RUN = ("--checkpoint", "runs/tiny")
SESSION = ("generate", *RUN, "-i", "-n", 4, "-t", 0)


@pytest.fixture
def words(minigpt: Minigpt, home: Path) -> str:
    """A model of words that saw line breaks only in pairs."""
    paragraphs = (home / "story.txt").read_text(encoding="utf-8").replace("\n", "\n\n").strip()
    (home / "paragraphs.txt").write_text(paragraphs, encoding="utf-8")
    options = ("--tokenizer", "word", "--out", "words", "--device", "cpu", "--max-iters", 2)
    assert minigpt("train", "tiny", "paragraphs.txt", *options).exit_code == 0
    return "words"


# --- Probabilities ----------------------------------------------------------------------------


def luminance(color: Any) -> float:
    """Relative luminance as WCAG 2 defines it."""
    channels = (part / 255 for part in color.get_truecolor())
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])


def test_shades_are_readable_on_any_terminal_and_differ_in_brightness() -> None:
    console = Console()
    backgrounds = []
    for _, style in SHADES:
        parsed = console.get_style(style)
        assert (parsed.color is None) == (parsed.bgcolor is None)
        if parsed.color and parsed.bgcolor:
            light, dark = sorted(map(luminance, (parsed.color, parsed.bgcolor)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) > 4.5
            backgrounds.append(luminance(parsed.bgcolor))
    assert all(a > 1.3 * b for a, b in pairwise(backgrounds))
    assert len(SHADES) == len(SHADE_NAMES)


def test_legend_is_on_stderr_where_there_are_colors(
    minigpt: Minigpt, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("generate", *RUN, "-n", 5, "--show-probabilities")
    assert "this output has none; --json" in minigpt(*options).stderr
    terminal = Console(force_terminal=True, color_system="truecolor")
    monkeypatch.setattr(writing, "out", terminal)
    shown = minigpt(*options).stderr
    assert "probability of each token:" in shown
    assert all(name in shown for name in SHADE_NAMES)
    monkeypatch.setattr(
        writing, "out", Console(force_terminal=True, color_system="truecolor", no_color=True)
    )
    assert "this output has none" in minigpt(*options).stderr


@pytest.mark.parametrize("stop", ["e", "he", "n t", " old", "\n"])
def test_tokens_with_probabilities_end_where_the_text_ends(minigpt: Minigpt, stop: str) -> None:
    options = ("generate", *RUN, "-p", "T", "-n", 80, "--json", "--show-probabilities")
    (text,) = json.loads(minigpt(*options, "--stop", stop).stdout)
    assert "".join(token["text"] for token in text["tokens"]) == text["text"]


def test_a_token_that_a_stop_text_cuts_is_cut_too(minigpt: Minigpt, words: str) -> None:
    options = ("generate", "-c", words, "-p", "The", "-n", 40, "--json", "--show-probabilities")
    for stop in ("e", "l", "r", "\n"):
        (text,) = json.loads(minigpt(*options, "--stop", stop).stdout)
        assert "".join(token["text"] for token in text["tokens"]) == text["text"]


# --- Prompts ----------------------------------------------------------------------------------


def test_a_word_model_starts_from_a_line_break_and_says_nothing_of_a_prompt(
    minigpt: Minigpt, words: str
) -> None:
    from minigpt_cli.runs.checkpoint import load_checkpoint

    tokenizer = load_checkpoint(Path(words) / "checkpoint.safetensors").tokenizer
    assert [tokenizer.token_bytes[i] for i in tokenizer.start_ids] == [b"\n\n"]
    assert minigpt("generate", "-c", words, "-n", 5).stderr == ""


@pytest.mark.parametrize("option", ["--prompt", "--stop"])
@pytest.mark.parametrize("text", [r"a\n", r"\tb"])
def test_an_escape_in_an_argument_is_said_to_be_none(
    minigpt: Minigpt, words: str, option: str, text: str
) -> None:
    said = minigpt("generate", "-c", words, "-n", 2, option, text).stderr
    assert f"type $'{text}' (bash, zsh)" in said
    assert "backslash" not in minigpt("generate", *RUN, "-n", 2, option, "\n").stderr


def test_line_ends_are_read_alike_from_stdin_and_files(minigpt: Minigpt, home: Path) -> None:
    unix = minigpt("generate", *RUN, "-n", 9, "-p", "-", stdin="The\nold").stdout
    assert minigpt("generate", *RUN, "-n", 9, "-p", "-", stdin=b"The\r\nold").stdout == unix


# --- Sessions ---------------------------------------------------------------------------------


def test_save_asks_before_it_overwrites(minigpt: Minigpt, home: Path) -> None:
    (home / "kept.txt").write_text("mine")
    result = minigpt(*SESSION, stdin="The\n/save kept.txt\n")
    assert "error: /save kept.txt: already exists; /save! kept.txt overwrites it" in result.stderr
    assert (home / "kept.txt").read_text() == "mine"
    minigpt(*SESSION, stdin="The\n/save! kept.txt\n/save! new.txt\n")
    assert (home / "kept.txt").read_text() == (home / "new.txt").read_text()
    assert (home / "kept.txt").read_text().startswith("The")


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ("The old\\\nMy old\n", "The old\nMy old"),
        ("The\\\n\\\nMy\n", "The\n\nMy"),
        ("The\\\n", "The\n"),
        ("\\\n\n", "\n"),
    ],
)
def test_a_backslash_at_the_end_makes_a_line_break(
    minigpt: Minigpt, home: Path, lines: str, text: str
) -> None:
    result = minigpt(*SESSION, stdin=f"{lines}")
    assert result.stdout.startswith(text)
    assert "error" not in result.stderr


@pytest.mark.parametrize(
    ("line", "said"), [("//help", "/help"), ("//", "/"), ("a\\\\", "a\\"), ("///", "//")]
)
def test_a_line_may_begin_with_a_slash_or_end_with_a_backslash(
    minigpt: Minigpt, words: str, line: str, said: str
) -> None:
    session = ("generate", "-c", words, "-i", "-n", 1, "-t", 0)
    assert minigpt(*session, stdin=f"{line}\n").stdout.startswith(said)


def test_settings_are_shown_and_changed(minigpt: Minigpt) -> None:
    lines = (
        "/settings\n/temperature 0.5\n/settings top-k 7\n/settings min_p=0.1\n/top-k off\n"
        "/max-new-tokens 3\n/settings\n"
    )
    said = minigpt(*SESSION, stdin=lines).stderr
    before, after = (part.split("/max-new-tokens")[0] for part in said.split("/temperature ")[-2:])
    assert [line.split() for line in before.splitlines()[1:6]][:2] == [
        ["/top-p", "off"],
        ["/min-p", "off"],
    ]
    assert "/min-p" in after
    assert "0.1" in after
    assert "  top-k 7\n" in said
    assert "  top-k off\n" in said
    assert said.rstrip().endswith("3")


@pytest.mark.parametrize(
    ("line", "message"),
    [("/temprature 1", "did you mean /temperature?"), ("/sav x", "did you mean /save?"),
     ("/seed off", "not a whole number"), ("/settings fly 3", "unknown command")],
)  # fmt: skip
def test_commands_that_do_not_exist_are_answered_with_the_nearest(
    minigpt: Minigpt, line: str, message: str
) -> None:
    assert message in minigpt(*SESSION, stdin=f"{line}\n").stderr


def test_the_users_words_are_told_from_the_models(
    minigpt: Minigpt, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Console(force_terminal=True, color_system="truecolor", width=80)
    monkeypatch.setattr(writing, "out", terminal)
    with terminal.capture() as capture:
        minigpt(*SESSION, stdin="The old\n")
    assert "\x1b[1mThe old\x1b[0m" in capture.get()


def test_help_promises_the_same_text_in_any_company_for_fp32_alone(minigpt: Minigpt) -> None:
    shown = " ".join(minigpt("generate", "--help").stdout.split())
    assert "With --precision fp32, a text is the same whatever is generated beside it" in shown
