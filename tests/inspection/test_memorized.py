"""Copied passages, found by hand and by looking everywhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt_cli.config.schema import DataConfig, ModernConfig
from minigpt_cli.data.corpora.corpus import Corpus
from minigpt_cli.data.corpora.sources import TextFile
from minigpt_cli.data.dataset import Dataset, prepare_dataset
from minigpt_cli.data.workspace import Workspace
from minigpt_cli.generation.sampling import Sampling
from minigpt_cli.generation.text import Piece
from minigpt_cli.inspection import memorized as module
from minigpt_cli.inspection.memorized import (
    COPIED,
    Measure,
    Memorized,
    TextIndex,
    _cut_alike,
    _measure,
    copied_length,
    memorized,
)
from minigpt_cli.runs.checkpoint import load_checkpoint
from tests.helpers.dense_gpt import random_gpt

# Characters whose bytes begin alike, so that a match of bytes may end within one.
few_characters = st.text("ab\né鹭鹮🛶", min_size=1, max_size=60)


def everywhere(training: str, text: str) -> list[tuple[int, int]]:
    """Every passage of a text that stands in another and in no longer one that does."""
    spans = [
        (start, end)
        for start in range(len(text))
        for end in range(start + 1, len(text) + 1)
        if text[start:end] in training
    ]
    return [
        (a, b)
        for a, b in spans
        if not any(c <= a and b <= d and (a, b) != (c, d) for c, d in spans)
    ]


@given(few_characters, few_characters)
def test_passages_match_a_brute_force_search(training: str, text: str) -> None:
    assert list(TextIndex(training).passages(text)) == everywhere(training, text)


@given(few_characters, st.data())
def test_first_line_and_count_match_a_plain_search(training: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(training) - 1))
    passage = training[start : data.draw(st.integers(start + 1, len(training)))]
    places = [i for i in range(len(training)) if training.startswith(passage, i)]
    skipped = len(passage) - len(passage.lstrip())
    word = places[0] + skipped
    if skipped == len(passage):  # the next word's line, or the last
        rest = training[places[0] :]
        word = places[0] + (len(rest) - len(rest.lstrip()) if rest.strip() else 0)
    line, times = TextIndex(training).first(passage)
    assert (line, times) == (training.count("\n", 0, word) + 1, len(places))


@given(st.lists(st.tuples(few_characters), min_size=1, max_size=4), few_characters)
def test_share_counts_each_character_once(texts: list[tuple[str]], training: str) -> None:
    index = TextIndex(training)
    written = [text * 3 for (text,) in texts]
    found = [list(index.passages(text)) for text in written]
    covered, longest = 0, 0
    for text, passages in zip(written, found, strict=True):
        marks = [False] * len(text)
        for start, end in passages:
            longest = max(longest, end - start)
            if end - start >= COPIED:
                marks[start:end] = [True] * (end - start)
        covered += sum(marks)
    total = sum(map(len, written))
    assert _measure(written, found, COPIED) == Measure(total, longest, covered / total)


def test_unseen_text_is_cut_to_the_same_lengths() -> None:
    assert _cut_alike("abcdefg", ["xx", "yyy", "z"]) == ["ab", "cde", "f"]
    assert _cut_alike("abcd", ["xx", "yyy", "z"]) == ["ab", "cd"]
    assert _cut_alike("", ["xx"]) == []


PLANTED = "and the heron 鹭 forgets\nevery bridge it has crossed"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    lines = [f"{i}: nothing like it {i * i}" for i in range(200)]
    lines[120] = f"A line of its own, {PLANTED}, as I said."
    (tmp_path / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    corpus = Corpus("text", (TextFile(tmp_path / "text.txt"),))
    return prepare_dataset(corpus, DataConfig(tokenizer="byte"), tmp_path / "data")


def writing(monkeypatch: pytest.MonkeyPatch, *texts: str) -> None:
    """Lets the model write these texts."""

    def generate(*arguments: Any, **options: Any) -> Iterator[list[Piece]]:
        for column in zip(*(text.ljust(max(map(len, texts))) for text in texts), strict=True):
            yield [Piece(char) for char in column]

    monkeypatch.setattr(module, "generate_texts", generate)


MODEL = random_gpt(ModernConfig(n_layer=1, n_head=2, n_embd=16, block_size=8), 256)


def test_planted_passage_is_found_with_its_exact_place(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing(monkeypatch, "x" * 80, f"§§{PLANTED}§§")
    found = memorized(MODEL, dataset, samples=2)
    longest = found.passages[0]
    assert (longest.text, longest.line, longest.times) == (PLANTED, 121, 1)
    assert longest.sample == 2
    assert found.written == Measure(160, len(PLANTED), len(PLANTED) / 160)
    assert found.verdict != "writes"
    assert all(PLANTED not in other.text for other in found.passages[1:])


def test_shown_passages_do_not_overlap_nor_repeat(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"{PLANTED} nothing like it {PLANTED}"
    writing(monkeypatch, text, text)
    texts = [passage.text for passage in memorized(MODEL, dataset).passages]
    assert len(texts) == len(set(texts))
    assert [len(text) for text in texts] == sorted(map(len, texts), reverse=True)
    assert sum("heron" in text for text in texts) == 1


def test_model_that_learned_nothing_has_short_copies_only(dataset: Dataset) -> None:
    found = memorized(MODEL, dataset, samples=2, tokens=200)
    assert 0 < found.written.longest < 8
    assert found.written.share == 0
    assert found.verdict == "writes"


def test_unseen_text_is_measured_the_same_way(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing(monkeypatch, "x" * 200, "x" * 200)
    found = memorized(MODEL, dataset)
    val = dataset.tokenizer.decode(dataset.tokens("val"))[:400]
    train = dataset.tokenizer.decode(dataset.tokens("train"))
    assert found.unseen is not None
    assert found.unseen.characters == 400
    spans = [span for part in (val[:200], val[200:]) for span in everywhere(train, part)]
    assert found.unseen.longest == max(end - start for start, end in spans)


def test_trained_model_is_the_same_every_time(
    trained_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained_home)
    loaded = load_checkpoint(trained_home / "runs" / "tiny" / "checkpoint.safetensors")
    dataset = Workspace(Path("data")).own_dataset(loaded.metadata)
    first, again = (memorized(loaded.model, dataset, 2, 100) for _ in range(2))
    assert first == again
    assert (first.samples, first.tokens, first.written.characters) == (2, 100, 200)


@pytest.mark.parametrize(
    ("written", "unseen", "verdict"),
    [
        ((30, 0.40), (30, 0.50), "cannot tell"),
        ((30, 0.30), (30, 0.29), "writes"),
        ((30, 0.80), (30, 0.50), "copies"),
        ((40, 0.04), (35, 0.0), "writes"),
        ((40, 0.30), (60, 0.29), "writes"),
        ((40, 0.06), (35, 0.0), "copies in places"),
        ((200, 0.01), (35, 0.0), "copies in places"),
        ((70, 0.0), (20, 0.0), "copies in places"),
        ((39, 0.0), (20, 0.0), "writes"),
        ((400, 0.9), (35, 0.02), "copies"),
        ((400, 0.9), None, "copies"),
        ((20, 0.0), None, "writes"),
    ],
)
def test_verdict_compares_generated_text_with_unseen_text(
    written: tuple[int, float], unseen: tuple[int, float] | None, verdict: str
) -> None:
    measures = [pair and Measure(1000, *pair) for pair in (written, unseen)]
    assert measures[0] is not None
    assert Memorized(1, 1, Sampling(), measures[0], measures[1], ()).verdict == verdict


@pytest.mark.parametrize(
    ("text", "length"),
    [("To be, or not to be", 20), ("", 20), ("学而时习之不亦说乎", 8),
     ("学而时习之，不亦说乎？", 9),
     ("ひらがなカタカナ漢字", 8), ("한국어문장", 8), ("half 一半半半半", 11),
     ("naïve Ελληνικά русский", 20)],
)  # fmt: skip
def test_length_of_a_copy_depends_on_the_script(text: str, length: int) -> None:
    assert copied_length(text * 100) == length


def test_a_chinese_sentence_is_a_copy() -> None:
    texts = ["学而时习之不亦说乎"]
    assert _measure(texts, [[(0, 9)]], copied_length(texts[0])).share == 1
    assert _measure(texts, [[(0, 9)]], COPIED).share == 0
