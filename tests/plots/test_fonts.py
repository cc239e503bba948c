"""Characters that no listed font has: a font is looked for, and its absence said and drawn."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.font_manager import findSystemFonts, fontManager

from minigpt_cli.plots import canvas
from minigpt_cli.plots.canvas import in_picture, label, missing_font_note, text_inches


@pytest.fixture(autouse=True)
def fresh_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only matplotlib's own fonts are listed, as on a machine where others came later."""
    own = [font for font in fontManager.ttflist if "matplotlib" in font.fname]
    monkeypatch.setattr(fontManager, "ttflist", own)
    for name in ("_searched", "_missing"):
        monkeypatch.setattr(canvas, name, set())
    monkeypatch.setattr(canvas, "_found", [])
    for cached in (canvas.families, canvas._glyphs):
        cached.cache_clear()
    yield
    for cached in (canvas.families, canvas._glyphs):
        cached.cache_clear()


def chinese_font() -> Path | None:
    return next((Path(f) for f in findSystemFonts() if "CJK" in f or "wqy" in f), None)


@pytest.mark.skipif(chinese_font() is None, reason="needs a font that has Chinese")
def test_a_font_installed_after_the_list_was_made_is_found() -> None:
    assert label("小a") == "小a"
    assert len(canvas.families()) > 1
    assert missing_font_note() is None


@pytest.mark.parametrize(
    ("text", "package"),
    [("小楼", "fonts-noto-cjk"), ("かな", "fonts-noto-cjk"), ("한글", "fonts-noto-cjk"),
     ("\U00013000", "fonts-noto-core")],
)  # fmt: skip
def test_without_a_font_the_package_that_brings_one_is_said_once(
    monkeypatch: pytest.MonkeyPatch, text: str, package: str
) -> None:
    monkeypatch.setattr(canvas, "findSystemFonts", list)
    assert label(text) == "".join(f"{ord(char):04X}" for char in text)
    note = missing_font_note()
    assert note is not None
    assert package in note
    assert f"U+{ord(min(text)):04X}" in note
    assert missing_font_note() is None
    assert text_inches(label(text), 9) < 0.5 * len(text)


def test_what_is_no_character_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas, "_other_fonts", lambda: pytest.fail("looked for a font"))
    for char in "\ue000\u0378\x81":
        assert label(char) == f"{ord(char):04X}"


def test_a_block_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: Iterator[list[tuple[str, str]]] = iter([[]])
    monkeypatch.setattr(canvas, "_other_fonts", lambda: next(looked))
    label("\U00013000\U00013001\U00013002")
    assert next(looked, None) is None


def test_labels_are_in_english_where_no_font_has_the_users_language(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MINIGPT_LANG", "zh_CN")
    monkeypatch.setattr(canvas, "findSystemFonts", list)
    assert in_picture("loss (nats per token)") == "loss (nats per token)"
    assert missing_font_note() is None  # nothing of the picture is missing


@pytest.mark.skipif(chinese_font() is None, reason="needs a font that has Chinese")
def test_labels_are_in_the_users_language_where_a_font_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MINIGPT_LANG", "zh_CN")
    assert in_picture("loss (nats per token)") == "损失（每词元奈特）"
