"""A validation text of one's own, instead of the end of the training text."""

from pathlib import Path

import pytest

from minigpt_cli.config.schema import DataConfig
from minigpt_cli.data.workspace import Workspace


def prepared(folder: Path, **settings: object) -> tuple[str, str, str]:
    dataset = Workspace(folder / "data").dataset(DataConfig.model_validate(settings))
    decode = dataset.tokenizer.decode
    train, val = decode(dataset.tokens("train")), decode(dataset.tokens("val"))
    return train, val, dataset.metadata.fingerprint


@pytest.fixture
def texts(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "a.txt").write_text("the river runs under the bridge\n" * 4, encoding="utf-8")
    (tmp_path / "b.txt").write_text("QUIET, the zebra dozes\n", encoding="utf-8")
    return str(tmp_path / "a.txt"), str(tmp_path / "b.txt")


@pytest.mark.parametrize("kind", ["char", "word", "byte", "bpe"])
def test_all_of_the_corpus_is_trained_on_and_the_other_text_validates(
    tmp_path: Path, texts: tuple[str, str], kind: str
) -> None:
    size = {"vocab_size": 300} if kind == "bpe" else {}
    train, val, _ = prepared(tmp_path, corpus=texts[0], val_corpus=texts[1], tokenizer=kind, **size)
    assert train == Path(texts[0]).read_text()
    assert val == Path(texts[1]).read_text()


def test_fingerprint_depends_on_both_texts(tmp_path: Path, texts: tuple[str, str]) -> None:
    usual = prepared(tmp_path, corpus=texts[0])[2]
    both = prepared(tmp_path, corpus=texts[0], val_corpus=texts[1])[2]
    again = prepared(tmp_path, corpus=texts[0], val_corpus=texts[1])[2]
    Path(texts[1]).write_text("another one\n")
    changed = prepared(tmp_path, corpus=texts[0], val_corpus=texts[1])[2]
    assert both == again
    assert len({usual, both, changed}) == 3
