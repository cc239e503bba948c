"""`tokenize --check`: damage, repetition, rare characters and lengths."""

import gzip
import json
from pathlib import Path

import pytest

from minigpt_cli.data.corpora import checking
from minigpt_cli.data.corpora.checking import TextCheck, bad_bytes, check_text
from minigpt_cli.data.corpora.corpus import open_corpus
from minigpt_cli.data.corpora.sources import TextFile
from minigpt_cli.data.reading import read_corpus

PARAGRAPHS = [f"Paragraph {n} says that the gull sat on the rail of the pier." for n in range(20)]


def checked(path: Path, val_fraction: float = 0.25) -> TextCheck:
    corpus = open_corpus((str(path),), path.parent / "data")
    return check_text(corpus, read_corpus(corpus), val_fraction)


@pytest.mark.parametrize(
    ("data", "encoding", "places"),
    [
        (b"fine", "utf-8", ()),
        (b"a\xffb\xfe\xfe", "utf-8", (1, 3, 4)),
        ("é".encode() * 3 + b"\xc3", "utf-8", (6,)),
        (b"\xef\xbb\xbfa\xff", "utf-8", (4,)),
        ("好".encode("gb18030") + b"\xff\xff", "gb18030", (2, 3)),
        (b"x" * 9 + b"\xe5\xa5" + b"y", "utf-8", (9,)),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("chunk", [1, 3, 1 << 20])
def test_every_bad_byte_is_found_where_it_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    data: bytes,
    encoding: str,
    places: tuple[int, ...],
    packed: bool,
    chunk: int,
) -> None:
    monkeypatch.setattr(checking, "_CHUNK", chunk)
    path = tmp_path / "a.txt"
    path.write_bytes(gzip.compress(data) if packed else data)
    found = bad_bytes(TextFile(path, encoding, compression="gzip" if packed else ""))
    assert (() if found is None else found.places) == places


def test_of_very_many_bad_bytes_the_first_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xff" * 100)
    found = bad_bytes(TextFile(path))
    assert found is not None
    assert (found.places, found.more) == ((0, 1, 2, 3, 4), True)


def test_repeated_documents_are_counted_and_those_in_both_parts(tmp_path: Path) -> None:
    documents = [*PARAGRAPHS, PARAGRAPHS[0], PARAGRAPHS[0], PARAGRAPHS[19]]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    found = checked(path)
    assert (found.unit, found.passages, found.duplicates) == ("documents", 23, 3)
    assert found.overlap == 2  # the last five or six are for validation: number 0 twice
    assert found.duplicate == PARAGRAPHS[0][:60]
    assert found.lengths is not None
    assert (found.lengths.shortest, found.lengths.longest) == (
        len(PARAGRAPHS[0]), len(PARAGRAPHS[19])
    )  # fmt: skip


def test_paragraphs_are_compared_where_there_are_no_documents(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(["Chorus", *PARAGRAPHS, "Chorus", f"  {PARAGRAPHS[3]}\n"]))
    found = checked(path)
    assert (found.unit, found.passages, found.duplicates, found.overlap) == (
        "paragraphs", 21, 1, 1
    )  # fmt: skip


def test_rare_characters_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("abc" * 10 + "é☃☃", encoding="utf-8")
    found = checked(path)
    assert (found.characters, found.rare_characters, found.rarest) == (5, 2, "é☃")


def test_very_many_passages_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "_MOST_PASSAGES", 64)
    path = tmp_path / "a.jsonl"
    texts = [f"document number {n}" for n in range(2000)] * 2
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    found = checked(path)
    assert found.passages == 4000
    assert 1000 < found.duplicates < 3000
    assert found.lengths is not None
    assert 17 <= found.lengths.median <= 20
