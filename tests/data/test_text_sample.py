"""BPE learns from a sample of a large text, the same one each time."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt_cli.config.schema import DataConfig
from minigpt_cli.data import text_sample
from minigpt_cli.data.corpora.corpus import open_corpus
from minigpt_cli.data.dataset import Dataset, prepare_dataset
from minigpt_cli.data.text_sample import BLOCK, spread
from minigpt_cli.errors import CorpusError


def test_sample_is_spread_evenly_and_of_the_size_asked_for() -> None:
    blocks = [chr(0x4E00 + number) * BLOCK for number in range(100)]
    taken = [block[0] for block in spread(blocks, 250, 1000)]
    assert [ord(char) - 0x4E00 for char in taken] == list(range(3, 100, 4))
    assert list(spread(blocks, 1000, 1000)) == blocks


@given(cuts=st.lists(st.integers(0, 700), max_size=6), size=st.integers(1, 700))
def test_sample_does_not_depend_on_how_the_text_is_given(cuts: list[int], size: int) -> None:
    text = "".join(f"w{number} " for number in range(140))
    places = sorted({0, *cuts, len(text)})
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_sample, "BLOCK", 50)
        assert list(spread(pieces, size, 700)) == list(spread([text], size, 700))


def test_words_at_the_edges_of_a_sample_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_sample, "BLOCK", 10)
    assert list(spread(["cut whole c", "ut"], 1, 1)) == ["whole", "cut"]


def prepare(folder: Path, expected: str | None = None, **settings: int) -> Dataset:
    path = folder / "tale.txt"
    path.write_text("abcdefgh " * 300 + "zzzyyyxx " * 300, encoding="utf-8")
    config = DataConfig(tokenizer="bpe", vocab_size=290, **settings)  # type: ignore[arg-type]
    corpus = open_corpus((str(path),), folder / "data")
    return prepare_dataset(corpus, config, folder / "data", expected=expected)


def test_merges_are_learned_from_the_sample_and_older_models_keep_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_sample, "BLOCK", 900)
    whole = prepare(tmp_path)
    sampled = prepare(tmp_path, bpe_sample=1000)
    assert sampled.metadata.fingerprint != whole.metadata.fingerprint
    assert b"abcdefgh" in whole.tokenizer.token_bytes
    assert sampled.tokenizer.token_bytes != whole.tokenizer.token_bytes
    assert sampled.tokenizer.decode(sampled.tokens("all")).startswith("abcdefgh ")
    for size in (0, 10**9):  # all of it
        assert prepare(tmp_path, bpe_sample=size).folder == whole.folder
    known = whole.metadata.fingerprint
    assert prepare(tmp_path, known, bpe_sample=1000).folder == whole.folder
    with pytest.raises(CorpusError, match="the text has changed"):
        prepare(tmp_path, sampled.metadata.fingerprint)
