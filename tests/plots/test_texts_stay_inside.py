"""Titles, legends and labels stay inside their picture, whatever script they are in."""

import unicodedata
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure

from minigpt_cli.inspection.attention import Attention, Head
from minigpt_cli.inspection.embeddings import Embeddings, Neighbor, TokenPoint
from minigpt_cli.inspection.next_token import Choice, Cut, NextToken
from minigpt_cli.inspection.tokens import Window
from minigpt_cli.plots import canvas
from minigpt_cli.plots.attention import draw_attention
from minigpt_cli.plots.canvas import fitted
from minigpt_cli.plots.embeddings import draw_embeddings
from minigpt_cli.plots.next_token import draw_next
from minigpt_cli.plots.runs import draw_runs
from tests.plots.test_run_curves import RISING, run_named

SCRIPTS = {
    "latin": "W",
    "chinese": "长名字",
    "hieroglyphs": "\U00013000\U00013001",
    "combining": "e\u0301\u0302\u0303",
    "right to left": "שלום",
    "controls": "\x1b[31m\n",
    "formula": "$W_",
    "halves": "\ud800",
}


@pytest.fixture(params=list(SCRIPTS.values()), ids=list(SCRIPTS))
def long_word(request: pytest.FixtureRequest) -> str:
    """Characters without a space or a slash; more than any picture has room for."""
    script: str = request.param
    return script * (300 // len(script))


@pytest.fixture(autouse=True)
def no_chinese_font(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The fonts of a fresh machine: those that come with matplotlib."""
    monkeypatch.setattr(canvas, "_CJK", ())
    monkeypatch.setattr(canvas, "_other_fonts", list)
    monkeypatch.setattr(canvas, "_found", [])
    monkeypatch.setattr(canvas, "_searched", set())
    monkeypatch.setattr(canvas, "_missing", set())
    caches = (canvas.families, canvas._glyphs)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def stays_inside(figure: Figure) -> bool:
    """Whether everything drawn is within the edges of the picture as it is written."""
    figure.draw_without_rendering()  # a missing glyph or collapsed axes warn: an error here
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return bool(drawn.x0 >= 0 and drawn.y0 >= 0 and drawn.x1 <= width and drawn.y1 <= height)


@pytest.mark.parametrize(("count", "width"), [(1, 6), (3, 9)])
def test_names_of_runs(long_word: str, count: int, width: float) -> None:
    runs = [run_named(f"runs/{long_word}{i}", RISING) for i in range(count)]
    figure = draw_runs(runs, width)
    assert stays_inside(figure)
    for legend in figure.legends:
        assert [text.get_text().rpartition(", best")[0][-1] for text in legend.get_texts()] == [
            *"012"
        ]


def of_tokens(tokens: tuple[str, ...], heads: int) -> Attention:
    weights = np.eye(len(tokens), dtype=np.float32)
    found = tuple(Head(0, i, weights, 0.0, 0.0, 0.0, 1.0, 0.0) for i in range(heads))
    return Attention(Window(tuple(range(len(tokens))), tokens, 0), found)


@pytest.mark.parametrize("heads", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_tokens_of_attention_maps(long_word: str, heads: int) -> None:
    tokens = (long_word, "a", long_word[::-1], *long_word[:9])
    figure = draw_attention(of_tokens(tokens, heads), long_word)
    assert stays_inside(figure)
    names = [text for text in figure.axes[0].get_xticklabels() if text.get_text()]
    boxes = [text.get_window_extent() for text in names]
    if not any(map(unicodedata.combining, long_word)):  # a stack of accents is higher than a line
        assert not any(a.overlaps(b) for a, b in pairwise(boxes))


def test_tokens_that_may_follow(long_word: str) -> None:
    tokens = (long_word, long_word[:1], "a")
    choices = tuple(Choice(t, (0.5, 0.3, 0.2), (Cut("top-k 2", 2, 0.8),)) for t in (0.5, 1.0, 2.0))
    figure = draw_next(NextToken(long_word, tokens, choices), long_word)
    assert stays_inside(figure)
    assert all(axes.get_window_extent().width > 200 for axes in figure.axes)


def test_tokens_of_the_embeddings_map(long_word: str) -> None:
    points = tuple(
        TokenPoint(i, token, "letters", x, x, (Neighbor("a", 0.5),))
        for i, (token, x) in enumerate([(long_word, 0.0), (long_word[:1], 1.0), ("a", 2.0)])
    )
    figure = draw_embeddings(Embeddings(points, (0.5, 0.2)), long_word)
    assert stays_inside(figure)


def test_a_label_is_the_longest_that_has_room(long_word: str) -> None:
    for keep in ("start", "end"):
        inches = [
            canvas.text_inches(fitted(long_word, room, 10, keep), 10) for room in (1.0, 2.0, 3.0)
        ]
        assert all(width <= room for width, room in zip(inches, (1.0, 2.0, 3.0), strict=True))
        assert all(width > room - 0.6 for width, room in zip(inches, (1.0, 2.0, 3.0), strict=True))
    assert fitted("short", 1.0, 10) == "short"
    assert fitted("abcdefghijklmnop", 0.5, 10).startswith("abc")
    assert fitted("abcdefghijklmnop", 0.5, 10, keep="end").endswith("nop")
    assert fitted(long_word, 0.0, 10) == "…"
