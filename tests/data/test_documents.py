"""Documents, and the token between them that no text can forge."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from minigpt_cli.config.choices import TokenizerKind
from minigpt_cli.config.schema import DataConfig
from minigpt_cli.data import reading as reading_module
from minigpt_cli.data.corpora.corpus import Corpus, Piece, encoded, open_corpus
from minigpt_cli.data.dataset import Dataset, prepare_dataset
from minigpt_cli.data.reading import Halves, read_corpus
from minigpt_cli.evaluation import counted_bytes
from minigpt_cli.tokenizer.base import StreamDecoder, Tokenizer
from minigpt_cli.tokenizer.factory import tokenizer_from_json, train_tokenizer

KINDS: tuple[TokenizerKind, ...] = ("char", "word", "byte", "bpe")
TEXTS = ["The gull sat.\n", "No <|endoftext|> here", "", "Ein Fähnchen, 天地.", "b" * 40 + "\n"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, text in enumerate(TEXTS):
        (tmp_path / f"{number}.txt").write_text(text, encoding="utf-8")
    return tmp_path


def corpus_of(folder: Path) -> Corpus:
    paths = tuple(str(path) for path in sorted(folder.glob("*.txt")))
    return open_corpus(paths, folder / "data", documents="files")


def prepared(folder: Path, kind: TokenizerKind, val_fraction: float = 0.3) -> Dataset:
    size = 300 if kind == "bpe" else None
    config = DataConfig(tokenizer=kind, vocab_size=size, val_fraction=val_fraction)
    return prepare_dataset(corpus_of(folder), config, folder / "data")


def test_files_are_documents_where_the_settings_say_so(folder: Path) -> None:
    pieces = list(corpus_of(folder).pieces())
    assert [piece.text for piece in pieces] == [text for text in TEXTS if text]
    assert all(piece.ends_document for piece in pieces)
    plain = open_corpus((str(folder),), folder / "data")
    assert not plain.has_documents
    assert not any(piece.ends_document for piece in plain.pieces())


def test_only_the_last_piece_of_a_long_document_ends_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * (5 << 19))
    (tmp_path / "b.txt").write_text("y")
    found = [(piece.file, piece.ends_document) for piece in corpus_of(tmp_path).pieces()]
    assert found == [(0, False), (0, False), (0, True), (1, True)]


@pytest.mark.parametrize("kind", KINDS)
def test_documents_are_kept_apart_by_a_token_that_no_text_can_forge(
    folder: Path, kind: TokenizerKind
) -> None:
    dataset = prepared(folder, kind)
    tokenizer, end = dataset.tokenizer, dataset.tokenizer.end_of_text
    assert end == tokenizer.vocab_size - 1
    assert end in tokenizer.end_ids
    assert tokenizer.start_ids == [end]
    ids = dataset.tokens("all")
    parts = np.split(ids, np.flatnonzero(ids == end) + 1)
    assert [tokenizer.decode(part) for part in parts[:-1]] == [text for text in TEXTS if text]
    assert parts[-1].size == 0
    assert end not in tokenizer.encode("<|endoftext|>") + tokenizer.encode("<|endoftext|> here")


@pytest.mark.parametrize("kind", KINDS)
def test_the_token_is_saved_counts_no_bytes_and_decodes_to_nothing(kind: TokenizerKind) -> None:
    tokenizer = train_tokenizer(kind, ["to be or not"], 300 if kind == "bpe" else None, 2, True)
    again = tokenizer_from_json(tokenizer.to_json())
    assert again.end_of_text == tokenizer.end_of_text is not None
    assert again.token_bytes == tokenizer.token_bytes
    assert tokenizer.decode([*tokenizer.encode("be"), tokenizer.end_of_text]) == "be"
    assert StreamDecoder(tokenizer.token_bytes).push(tokenizer.end_of_text) == ""
    assert counted_bytes(tokenizer)[tokenizer.end_of_text] == 0
    plain = train_tokenizer(kind, ["to be or not"], 300 if kind == "bpe" else None)
    assert "end_of_text" not in plain.to_json()
    assert plain.end_of_text is None


@pytest.mark.parametrize(("kind", "size"), [("bpe", 300), ("word", 5)])
def test_the_vocabularys_size_includes_the_token(kind: TokenizerKind, size: int) -> None:
    text = ["one two three four five six seven eight nine ten " * 20]
    assert train_tokenizer(kind, text, size, 2, True).vocab_size <= size
    assert train_tokenizer(kind, text, size, 2, True).vocab_size >= size - 10


class Counting(Tokenizer):
    """Each text is one token: how it was cut into pieces shows."""

    kind = "byte"

    def __init__(self) -> None:
        self.token_bytes = [b"x"] * 10
        self._add_end_of_text()

    def encode_array(self, text: str) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
        return np.array([len(text)], dtype=np.uint32)

    def to_json(self) -> str:
        return ""


def test_short_documents_are_encoded_together_and_long_ones_in_pieces() -> None:
    pieces = [
        Piece(0, "a", True), Piece(0, "bb", True), Piece(0, "ccc"), Piece(0, "dddd", True),
        Piece(1, "eeeee", True), Piece(1, "f"),
    ]  # fmt: skip
    arrays = [array.tolist() for array in encoded(pieces, Counting())]
    assert list(itertools.chain.from_iterable(arrays)) == [1, 10, 2, 10, 3, 4, 10, 5, 10, 1]
    assert arrays[0] == [1, 10, 2, 10]


def test_a_vocabulary_without_the_token_reads_documents_line_by_line() -> None:
    tokenizer = train_tokenizer("byte", [])
    pieces = [Piece(0, "a", True), Piece(0, "b\n", True), Piece(0, "c", True)]
    ids = itertools.chain.from_iterable(array.tolist() for array in encoded(pieces, tokenizer))
    assert tokenizer.decode(ids) == "a\nb\nc"


def test_validation_is_made_of_whole_documents(folder: Path) -> None:
    dataset = prepared(folder, "char", val_fraction=0.5)
    decode, end = dataset.tokenizer.decode, dataset.tokenizer.end_of_text
    assert decode(dataset.tokens("train")) == "".join(TEXTS[:4])
    assert decode(dataset.tokens("val")) == TEXTS[4]
    assert dataset.tokens("train")[-1] == dataset.tokens("val")[-1] == end


def test_validation_of_a_large_text_is_capped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = read_corpus(corpus_of(folder))
    assert reading.documents == 4
    starts = [len("".join(TEXTS[:number])) for number in (1, 2, 4)]
    assert reading.training_characters(0.99) == starts[0]
    monkeypatch.setattr(reading_module, "MOST_VALIDATION", 5)
    assert reading.training_characters(0.99) == starts[2]


def test_where_very_many_documents_end_is_remembered_evenly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading_module, "_MOST_ENDS", 10)
    ends = reading_module._Ends()
    for place in range(1, 101):
        ends.add(place)
    assert ends.count == 100
    assert ends.places == [16, 32, 48, 64, 80, 96]


def test_a_single_document_is_cut_within(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0123456789")
    assert read_corpus(corpus_of(tmp_path)).training_characters(0.2) == 8


def test_halves_of_documents_joined_are_the_documents() -> None:
    pieces = [Piece(0, "abc"), Piece(0, "de", True), Piece(1, "f", True)]
    for split in range(7):
        halves = Halves(iter(pieces), split)
        both = [*halves.first(), *halves.second()]
        assert "".join(piece.text for piece in both) == "abcdef"
        assert [piece.text[-1] for piece in both if piece.ends_document] == ["e", "f"]


def test_where_documents_end_is_part_of_the_fingerprint(folder: Path) -> None:
    before = read_corpus(corpus_of(folder)).sha256
    (folder / "0.txt").write_text(TEXTS[0] + TEXTS[1])
    (folder / "1.txt").unlink()
    assert read_corpus(corpus_of(folder)).sha256 != before


def test_prepared_documents_are_found_again(folder: Path) -> None:
    first = prepared(folder, "bpe")
    stamp = (first.folder / "train.bin").stat().st_mtime_ns
    again = prepared(folder, "bpe")
    assert again.folder == first.folder
    assert (again.folder / "train.bin").stat().st_mtime_ns == stamp
