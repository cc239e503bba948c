"""Pictures of a model: the numbers drawn, read back from the axes, and names that can be read."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from minigpt_cli.config.schema import ClassicConfig, ModernConfig
from minigpt_cli.generation.sampling import Sampling
from minigpt_cli.inspection.attention import attention_maps
from minigpt_cli.inspection.embeddings import project_embeddings
from minigpt_cli.inspection.gradients import Gradients, ParameterGradient
from minigpt_cli.inspection.next_token import next_token
from minigpt_cli.inspection.shapes import trace_shapes
from minigpt_cli.plots import canvas
from minigpt_cli.plots.attention import draw_attention
from minigpt_cli.plots.canvas import image_bytes, label
from minigpt_cli.plots.embeddings import draw_embeddings
from minigpt_cli.plots.gradients import draw_gradients
from minigpt_cli.plots.next_token import draw_next
from minigpt_cli.plots.shapes import draw_shapes
from minigpt_cli.runs.checkpoint import Checkpoint, load_checkpoint
from minigpt_cli.tokenizer.char import CharTokenizer
from tests.helpers.checkpoints import checkpoint_of
from tests.helpers.dense_gpt import random_gpt

TEXT = "The old heron\nmends"
NAME = "runs/x, step 20"


@pytest.fixture(scope="module")
def trained(trained_home: Path) -> Checkpoint:
    return load_checkpoint(trained_home / "runs" / "tiny" / "checkpoint.safetensors")


def of_characters(text: str, block_size: int = 80) -> Checkpoint:
    config = ModernConfig(n_layer=3, n_head=4, n_embd=16, block_size=block_size)
    tokenizer = CharTokenizer(text)
    return checkpoint_of(random_gpt(config, tokenizer.vocab_size), tokenizer)


def title(figure: Figure) -> str:
    return figure.get_suptitle()


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def widths(axes: Axes) -> list[float]:
    """How long the bars are."""
    return [bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle)]


def overlapping(texts: list[Text]) -> list[tuple[str, str]]:
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    return [(a, b) for (a, one), (b, other) in combinations(boxes, 2) if one.overlaps(other)]


# --- Attention ------------------------------------------------------------------------------


def test_maps_hold_the_weights_and_hide_what_comes_later(trained: Checkpoint) -> None:
    facts = attention_maps(trained, TEXT)
    figure = draw_attention(facts, NAME)
    maps = panels(figure)
    assert [axes.get_title() for axes in maps] == [
        f"layer {layer}, head {head}" for layer in (0, 1) for head in (0, 1)
    ]
    for axes, head in zip(maps, facts.heads, strict=True):
        drawn = axes.images[0].get_array()
        assert isinstance(drawn, np.ma.MaskedArray)
        assert (drawn.mask == ~np.tri(len(TEXT), dtype=bool)).all()
        assert (drawn.data == head.weights).all()
        assert axes.images[0].get_clim() == (0, 1)
    assert NAME in title(figure)


def test_axes_name_the_tokens_at_the_edges(trained: Checkpoint) -> None:
    figure = draw_attention(attention_maps(trained, "old man"), NAME)
    names = [
        ("".join(t.get_text() for t in axes.get_xticklabels()),
         "".join(t.get_text() for t in axes.get_yticklabels()))
        for axes in panels(figure)
    ]  # fmt: skip
    assert names == [("", "old␣man"), ("", ""), ("old␣man", "old␣man"), ("old␣man", "")]


@pytest.mark.parametrize("where", [(None, None), (1, None), (1, 2)])
def test_65_characters_are_legible_and_do_not_overlap(where: tuple[int, int]) -> None:
    text = "".join(chr(ord("A") + i % 58) for i in range(64)) + "W"
    facts = attention_maps(of_characters(text), text, *where)
    figure = draw_attention(facts, NAME)
    figure.draw_without_rendering()
    for axes in panels(figure):
        for axis in (axes.xaxis, axes.yaxis):
            names = [name for name in axis.get_ticklabels() if name.get_text()]
            assert overlapping(names) == []
            assert all(float(name.get_fontsize()) >= 6 for name in names)
    named = [t.get_text() for t in panels(figure)[-1].get_xticklabels()]
    if len(facts.heads) == 1:
        assert named == list(text)
    else:
        every = 65 // len(named) + (65 % len(named) > 0)
        assert named == list(text[::every])
        assert figure.get_supxlabel() == f"looks at (one of {every} is named)"


# --- Embeddings -----------------------------------------------------------------------------


def test_each_token_is_a_dot_with_its_name_in_the_color_of_its_kind(trained: Checkpoint) -> None:
    facts = project_embeddings(trained)
    figure = draw_embeddings(facts, NAME)
    (axes,) = figure.axes
    drawn = {
        (x, y, to_rgba(np.asarray(dots.get_facecolor())[0])) for dots in axes.collections
        for x, y in np.asarray(dots.get_offsets()).tolist()
    }  # fmt: skip
    assert {(x, y) for x, y, _ in drawn} == {(p.x, p.y) for p in facts.points}
    kinds = {(p.x, p.y): p.kind for p in facts.points}
    colors = {kind: {c for x, y, c in drawn if kinds[x, y] == kind} for kind in kinds.values()}
    assert all(len(found) == 1 for found in colors.values())
    assert len({next(iter(found)) for found in colors.values()}) == len(colors)
    assert {t.get_text() for t in axes.texts} == {
        "␣" if p.token == " " else "↵" if p.token == "\n" else p.token for p in facts.points
    }
    assert axes.get_xlabel() == f"first component, {facts.explained[0]:.1%} of the variance"
    assert axes.get_ylabel() == f"second component, {facts.explained[1]:.1%} of the variance"
    assert {t.get_text() for t in figure.legends[0].get_texts()} == set(colors)


def test_names_do_not_overlap_even_where_tokens_crowd() -> None:
    crowded = of_characters("".join(map(chr, range(0x21, 0x7F))))
    figure = draw_embeddings(project_embeddings(crowded), NAME)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    assert len(boxes) > 80
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    frame = axes.get_window_extent()
    assert all(frame.contains(*box.min) and frame.contains(*box.max) for box in boxes)


# --- The others -----------------------------------------------------------------------------


def test_shapes_are_bars_of_what_each_step_costs() -> None:
    config = ClassicConfig(n_layer=3, n_head=2, n_embd=8, block_size=8)
    way = trace_shapes(checkpoint_of(random_gpt(config, 3), CharTokenizer("abc")), "abcba")
    steps = [step for step in way.steps if not step.layer]
    figure = draw_shapes(way, NAME)
    for axes, cost in zip(figure.axes, ("parameters", "flops", "bytes"), strict=True):
        assert widths(axes) == [getattr(step, cost) for step in steps]
    names = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert "block 0  attention.scores     B H T T = 1×2×5×5" in names
    assert "5 tokens, the first of 3 blocks" in title(figure)


def test_next_tokens_are_bars_with_a_line_at_each_cut(trained: Checkpoint) -> None:
    cuts = (Sampling(top_k=3), Sampling(top_p=0.9))
    ids = trained.tokenizer.encode(TEXT)
    facts = next_token(trained, TEXT, ids, 12, cuts)
    figure = draw_next(facts, NAME)
    for axes, choice in zip(figure.axes, facts.choices, strict=True):
        assert tuple(widths(axes)) == choice.probabilities
        assert axes.get_title() == f"probability at temperature {choice.temperature:g}"
        assert [np.asarray(line.get_ydata())[0] for line in axes.lines] == [
            c.kept - 0.5 for c in choice.cuts
        ]
        legend = axes.get_legend()
        assert legend is not None
        assert [t.get_text().partition(" keeps")[0] for t in legend.get_texts()] == [
            "top-k 3", "top-p 0.9",
        ]  # fmt: skip
        kept = sum(choice.probabilities[:3])
        assert f" keeps 3, {kept:.1%}" in legend.get_texts()[0].get_text()
    assert title(figure).startswith("After “The␣old␣heron↵mends”")


def test_gradients_are_bars_of_the_ratio_with_what_is_wrong_beside_them() -> None:
    parameters = (
        ParameterGradient("a.weight", (2, 3), 0.5, 5.0),
        ParameterGradient("b.weight", (2,), 0.0, 5.0),
        ParameterGradient("c.weight", (2,), None, 5.0),
        ParameterGradient("d.bias", (2,), 0.1, 0.0),
        ParameterGradient("e.weight", (2,), 50.0, 5.0),
        ParameterGradient("f.weight", (2,), float("nan"), 5.0),
    )
    figure = draw_gradients(Gradients(7, True, 2, 9, 1.5, 1.0, parameters), NAME)
    (axes,) = figure.axes
    drawn = widths(axes)
    assert drawn[:5] == [0.1, 0, 0, 0, 10]
    assert axes.get_xscale() == "log"
    assert axes.get_xlim() == pytest.approx((0.01, 100))
    names = [t.get_text() for t in axes.get_yticklabels()]
    assert names == ["a", "b", "c", "d.bias", "e", "f"]
    marks = {names[round(t.get_position()[1])]: t.get_text() for t in axes.texts}
    assert marks == {
        "b": "dead", "c": "NO GRADIENT", "d.bias": "all weights are 0", "e": "exploding",
        "f": "exploding",
    }  # fmt: skip
    assert image_bytes(figure, "png")


def test_long_model_names_lose_their_beginning(trained: Checkpoint) -> None:
    name = "a_long_folder/" * 20 + "runs/x, step 20"
    for figure in (
        draw_attention(attention_maps(trained, "old man", 0, 0), name),
        draw_embeddings(project_embeddings(trained), name),
        draw_shapes(trace_shapes(trained, TEXT), name),
    ):
        image_bytes(figure, "png")
        assert "\n…/a_long_folder/" in title(figure)
        assert title(figure).endswith("/runs/x, step 20")
        box = figure.texts[0].get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width


# --- Files and fonts ------------------------------------------------------------------------


def test_picture_is_a_valid_image_of_its_size(trained: Checkpoint, tmp_path: Path) -> None:
    facts = project_embeddings(trained)
    (tmp_path / "e.png").write_bytes(image_bytes(draw_embeddings(facts, NAME), "png"))
    with Image.open(tmp_path / "e.png") as image:
        image.verify()
        assert image.size == (9 * canvas.DPI, 8 * canvas.DPI)
    assert b"<svg" in image_bytes(draw_embeddings(facts, NAME), "svg")


def test_a_dollar_sign_and_a_backslash_are_no_formula() -> None:
    text = "$x^2$ \\alpha $_$"
    figure = draw_attention(attention_maps(of_characters(text), text, 0, 0), f"{text}, step 1")
    assert image_bytes(figure, "png")
    assert label("$a$") == r"\$a\$"


def test_a_character_without_a_glyph_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for cached in (canvas.families, canvas._glyphs):
        cached.cache_clear()
    monkeypatch.setattr(canvas, "_CJK", ())
    assert canvas.families() == ["DejaVu Sans"]
    assert label("你a␣↵") == "U+4F60a␣↵"
    figure = draw_attention(attention_maps(of_characters("你好a"), "你好a", 0, 0), NAME)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["U+4F60", "U+597D", "a"]
    assert image_bytes(figure, "png")  # no warning of a missing glyph: it would be an error
    for cached in (canvas.families, canvas._glyphs):
        cached.cache_clear()


@pytest.mark.skipif(len(canvas.families()) < 2, reason="needs a font that has Chinese")
def test_chinese_is_drawn_as_it_is() -> None:
    assert label("你好") == "你好"
    figure = draw_embeddings(project_embeddings(of_characters("你好天地")), NAME)
    assert {t.get_text() for t in figure.axes[0].texts} == set("你好天地")
    assert image_bytes(figure, "png")  # no warning of a missing glyph: it would be an error
