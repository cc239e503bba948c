"""Records of JSON lines, CSV, Parquet and Arrow are documents; each format may be compressed."""

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigpt_cli.data.corpora.corpus import Corpus, Piece, open_corpus
from minigpt_cli.data.corpora.sources import Finding
from minigpt_cli.data.formats import base, parquet
from minigpt_cli.data.reading import read_corpus
from minigpt_cli.errors import CorpusError

TEXTS = [
    "The gull sat.\n",
    'He said "no", twice;\nthen left.',
    "天地之间",
    "<|endoftext|>",
    "x" * 90,
]
Write = Callable[[Path, str], Path]


def corpus_of(*names: Path | str, **options: Any) -> Corpus:
    find = Finding(**{key: options.pop(key) for key in ("include", "as_text", "text_field")
                      if key in options})  # fmt: skip
    return open_corpus(tuple(map(str, names)), Path("data"), find=find, **options)


def texts_of(corpus: Corpus) -> list[str]:
    """The documents, whole."""
    found, held = [], ""
    for piece in corpus.pieces():
        held += piece.text
        if piece.ends_document:
            found.append(held)
            held = ""
    assert not held
    return found


def bytes_reported(corpus: Corpus) -> int:
    """How many bytes have been read, as progress has it at the end; they never go back."""
    seen: list[int] = []
    list(corpus.pieces(lambda stage, done, total: seen.append(done)))
    assert seen == sorted(seen)
    return seen[-1]


def write_jsonl(path: Path, field: str = "text") -> Path:
    lines = [json.dumps({"id": number, field: text}) for number, text in enumerate(TEXTS)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_csv(path: Path, field: str = "text") -> Path:
    import csv

    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", field, "stars"])
        writer.writerows([number, text, 5] for number, text in enumerate(TEXTS))
    return path


def table(field: str) -> Any:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the corpora extra")
    return pyarrow.table({"id": list(range(len(TEXTS))), field: TEXTS})


def write_parquet(path: Path, field: str = "text") -> Path:
    columns = table(field)
    from pyarrow.parquet import write_table

    write_table(columns, path, row_group_size=2)
    return path


def write_arrow(path: Path, field: str = "text") -> Path:
    columns = table(field)
    from pyarrow import ipc

    with ipc.new_stream(path, columns.schema) as writer:
        writer.write_table(columns, max_chunksize=2)
    return path


def write_arrow_file(path: Path, field: str = "text") -> Path:
    columns = table(field)
    from pyarrow import ipc

    with ipc.new_file(path, columns.schema) as writer:
        writer.write_table(columns, max_chunksize=2)
    return path


WRITERS: dict[str, Write] = {
    "a.jsonl": write_jsonl, "a.ndjson": write_jsonl, "a.csv": write_csv,
    "a.parquet": write_parquet, "a.arrow": write_arrow, "b.arrow": write_arrow_file,
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", WRITERS)
def test_records_are_documents(name: str) -> None:
    corpus = corpus_of(WRITERS[name](Path(name), "text"))
    assert corpus.has_documents
    assert texts_of(corpus) == TEXTS
    assert corpus.name == name[0]


@pytest.mark.parametrize("name", WRITERS)
def test_another_field_is_read_where_it_is_named(name: str) -> None:
    path = WRITERS[name](Path(name), "body")
    assert texts_of(corpus_of(path, text_field="body")) == TEXTS
    with pytest.raises(CorpusError, match=r'no field "text"; it has: id, body') as caught:
        texts_of(corpus_of(path))
    assert caught.value.settings == ("data.text_field",)


@pytest.mark.parametrize("name", WRITERS)
def test_all_bytes_of_a_file_are_reported_as_read(name: str) -> None:
    path = WRITERS[name](Path(name), "text")
    assert bytes_reported(corpus_of(path)) == path.stat().st_size


def compressed(data: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(data)
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        zstd = pytest.importorskip("backports.zstd", reason="needs the corpora extra")
    found: bytes = zstd.compress(data)
    return found


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_files_are_read_like_the_others(suffix: str) -> None:
    write_jsonl(Path("a.jsonl"))
    write_csv(Path("a.csv"))
    Path("a.txt").write_text("Plain.\n" * 3)
    for name in ("a.jsonl", "a.csv", "a.txt"):
        plain, packed = Path(name), Path(f"{name}{suffix}")
        packed.write_bytes(compressed(plain.read_bytes(), suffix))
        one, other = corpus_of(plain), corpus_of(packed)
        assert list(one.pieces()) == list(other.pieces())
        assert one.name == other.name == "a"
        assert bytes_reported(other) == packed.stat().st_size
        packed.write_bytes(packed.read_bytes()[:-6])
        with pytest.raises(CorpusError, match=rf"{packed}: damaged compressed file"):
            list(corpus_of(packed).pieces())


def test_what_is_compressed_must_be_text_too() -> None:
    Path("a.txt.gz").write_bytes(gzip.compress(b"%PDF-1.4"))
    with pytest.raises(CorpusError, match=r"a\.txt\.gz: a PDF document, not plain text"):
        corpus_of("a.txt.gz")
    Path("b.gz").write_bytes(gzip.compress("Größe\n".encode("cp1252") * 30))
    corpus = corpus_of("b.gz", encoding="auto")
    assert "".join(corpus.chunks()) == "Größe\n" * 30
    Path("c.txt.gz").write_bytes(b"not compressed at all\n")
    assert "".join(corpus_of("c.txt.gz").chunks()) == "not compressed at all\n"


@pytest.mark.parametrize(
    ("suffix", "module", "needs"),
    [(".txt.zst", "backports", "backports.zstd"), (".parquet", "pyarrow", "pyarrow")],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, suffix: str, module: str, needs: str
) -> None:
    data = write_parquet(Path("b")).read_bytes() if suffix == ".parquet" else b"\x28\xb5\x2f\xfd"
    Path(f"a{suffix}").write_bytes(data)
    for name in (module, "compression", f"{module}.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(CorpusError, match=rf"needs {needs}; install it with: pip install 'mini"):
        corpus_of(f"a{suffix}")


def test_line_ends_of_records_are_read_as_the_settings_say() -> None:
    Path("a.jsonl").write_bytes(b'{"text": "a\\r\\nb\\rc"}\r\n{"text": "d"}\r\n')
    assert texts_of(corpus_of("a.jsonl")) == ["a\nb\nc", "d"]
    assert texts_of(corpus_of("a.jsonl", newlines="keep")) == ["a\r\nb\rc", "d"]
    Path("a.csv").write_bytes(b'text,x\r\n"a\r\nb",1\r\nd,2\r\n')
    assert texts_of(corpus_of("a.csv")) == ["a\nb", "d"]
    assert texts_of(corpus_of("a.csv", newlines="keep")) == ["a\r\nb", "d"]


@pytest.mark.parametrize("separator", ["\t", ";", ","])
def test_a_table_may_be_separated_otherwise(separator: str) -> None:
    rows = [["id", "text"], ["1", "one"], ["2", "two"]]
    Path("a.csv").write_text("\n".join(separator.join(row) for row in rows))
    assert texts_of(corpus_of("a.csv")) == ["one", "two"]


def test_tables_and_json_lines_are_read_in_their_encoding() -> None:
    for name, data in (("a.csv", "text\nÜbergröße\n"), ("a.jsonl", '{"text": "Übergröße"}\n')):
        Path(name).write_bytes(data.encode("cp1252"))
        assert texts_of(corpus_of(name, encoding="cp1252")) == ["Übergröße"]
        with pytest.raises(CorpusError, match=rf"{name}: not utf-8: byte \d+ \(0xdc\)"):
            texts_of(corpus_of(name))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"text": "a"', r"a\.jsonl:3: not JSON \(.* at column 13\); repair or remove"),
        ('["a"]', r"a\.jsonl:3: not a JSON object; .* as in \{\"text\": \"\.\.\.\"\}"),
        ('{"body": "a"}', r"a\.jsonl:3: no field \"text\"; it has: body"),
        ('{"text": ["a"]}', r"a\.jsonl:3: \"text\" is not text"),
        ('{"text": "\\ud800!"}', r"a\.jsonl:3: half of a character \(\\ud800\)"),
        ("[" * 100_000, r"a\.jsonl:3: not JSON"),
        ('{"text": ' + "9" * 5000 + "}", r"a\.jsonl:3: not JSON"),
    ],
)
def test_a_line_that_does_not_parse_is_named(line: str, problem: str) -> None:
    Path("a.jsonl").write_text(f'{{"text": "fine"}}\n\n{line}\n{{"text": "fine"}}\n')
    with pytest.raises(CorpusError, match=problem):
        texts_of(corpus_of("a.jsonl"))


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("a,b\n1,2\n", r"a\.csv: the header \(line 1\): no field \"text\"; it has: a, b"),
        ("", r"a\.csv: the header \(line 1\): no field \"text\"; it has: nothing"),
        ("id,text\n1,one\n2\n", r"a\.csv:3: 1 columns, and the header has 2"),
        ('id,text\n1,"one\n2,two\n', r"a\.csv:2: not CSV \(unexpected end of data\)"),
        ('id,text\n1,"one"x"\n', r"a\.csv:2: not CSV"),
    ],
)
def test_a_table_that_is_damaged_is_named(table: str, problem: str) -> None:
    Path("a.csv").write_text(table)
    with pytest.raises(CorpusError, match=problem):
        texts_of(corpus_of("a.csv"))


def test_a_column_that_is_no_text_is_refused() -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the corpora extra")
    from pyarrow.parquet import write_table

    write_table(pyarrow.table({"text": [[1], [2]]}), "a.parquet")
    with pytest.raises(CorpusError, match=r"a\.parquet: the column text is not text \(list"):
        texts_of(corpus_of("a.parquet"))
    write_table(pyarrow.table({"text": [b"fine", b"\xff"]}), "b.parquet")
    with pytest.raises(CorpusError, match=r"b\.parquet: row 2 is not UTF-8 at byte 0"):
        texts_of(corpus_of("b.parquet"))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "b.arrow"])
def test_a_table_that_is_cut_short_is_an_error_of_ours(name: str) -> None:
    path = WRITERS[name](Path(name), "text")
    whole = path.read_bytes()
    for length in (4, 10, len(whole) // 2, len(whole) - 12):
        path.write_bytes(whole[:length])
        with pytest.raises(CorpusError, match=r"cannot be read \(.*copy or download"):
            read_corpus(corpus_of(path))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "b.arrow"])
def test_a_damaged_table_never_ends_in_more_than_an_error_of_ours(name: str) -> None:
    """pyarrow reads beyond its memory, or ends the process, where it is not asked to check."""
    whole = WRITERS[name](Path(name), "text").read_bytes()
    random = np.random.default_rng(1)
    refused: list[str] = []
    for _ in range(60):
        data = bytearray(whole)
        for place in random.integers(0, len(data), random.integers(1, 4)):
            data[place] = random.integers(0, 256)
        Path(name).write_bytes(data)
        try:
            texts_of(corpus_of(name))
        except CorpusError as error:
            refused.append(str(error))
    assert 5 < len(refused) < 60
    assert not any("\n" in problem for problem in refused)


def test_records_without_text_are_passed_over() -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the corpora extra")
    from pyarrow.parquet import write_table

    values = ["one", None, "", "two", "one", None]
    write_table(pyarrow.table({"text": pyarrow.array(values).dictionary_encode()}), "a.parquet")
    write_table(pyarrow.table({"text": values}), "b.parquet", use_dictionary=False)
    lines = [json.dumps({"text": value}) for value in values]
    Path("c.jsonl").write_text("\n".join(lines))
    for name in ("a.parquet", "b.parquet", "c.jsonl"):
        assert texts_of(corpus_of(name)) == ["one", "two", "one"]


def test_no_document_may_be_too_long_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MOST_DOCUMENT", 60)
    write_jsonl(Path("a.jsonl"))
    Path("a.jsonl.gz").write_bytes(gzip.compress(Path("a.jsonl").read_bytes()))
    Path("a.csv").write_text("text\n" + "y" * 99 + "\n")
    Path("b.csv").write_text('text\n"' + "y\n" * 50 + '"\n')
    for name in ("a.jsonl", "a.jsonl.gz", "a.csv", "b.csv", write_parquet(Path("a.parquet"))):
        with pytest.raises(CorpusError, match=r"longer than 60 characters|limit \(60\)"):
            texts_of(corpus_of(name))


def test_a_value_stored_once_is_not_copied_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of a few kilobytes may stand for gigabytes."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs the corpora extra")
    from pyarrow.parquet import write_table

    text = pyarrow.array(["x" * 200_000]).dictionary_encode()
    indices = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 1_200), text.dictionary)
    write_table(pyarrow.table({"text": indices}), "a.parquet", compression="zstd")
    assert Path("a.parquet").stat().st_size < 100_000
    before = pyarrow.total_allocated_bytes()
    pieces = corpus_of("a.parquet").pieces()
    for _ in range(1_100):
        assert len(next(pieces).text) == 200_000
    assert pyarrow.total_allocated_bytes() - before < 50_000_000


def test_a_batch_of_rows_has_a_few_megabytes() -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the corpora extra")
    from pyarrow.parquet import ParquetFile, write_table

    for size, rows in ((100, 1024), (1_000_000, 16)):
        texts = [f"{number:06}" + "x" * size for number in range(10)]
        write_table(pyarrow.table({"text": texts}), "a.parquet", use_dictionary=False)
        assert parquet._rows(ParquetFile("a.parquet").metadata) == rows


def test_text_may_be_read_as_it_is() -> None:
    write_jsonl(Path("a.jsonl"))
    corpus = corpus_of("a.jsonl", as_text=True)
    assert not corpus.has_documents
    assert "".join(corpus.chunks()) == Path("a.jsonl").read_text()
    assert "keys and brackets" in corpus.files[0].note


def test_records_without_documents_are_lines_of_one_text() -> None:
    write_jsonl(Path("a.jsonl"))
    Path("b.txt").write_text("plain")
    corpus = corpus_of("a.jsonl", "b.txt", documents="none")
    assert not any(piece.ends_document for piece in corpus.pieces())
    joined = "".join(text if text.endswith("\n") else f"{text}\n" for text in TEXTS) + "plain"
    assert "".join(corpus.chunks()) == joined
    assert list(read_corpus(corpus).file_characters) == [len(joined) - 5, 5]


def test_files_beside_records_are_documents_too() -> None:
    write_jsonl(Path("a.jsonl"))
    Path("b.txt").write_text("plain")
    assert texts_of(corpus_of("a.jsonl", "b.txt")) == [*TEXTS, "plain"]


# Which files of a folder


def names(corpus: Corpus, folder: str) -> list[str]:
    return [file.path.relative_to(folder).as_posix() for file in corpus.files]


def kinds(corpus: Corpus) -> dict[str, str]:
    return {item.path.name: item.kind for item in corpus.left_out}


@pytest.fixture
def dataset() -> Path:
    """A folder as datasets are published: tables by split, and a page that describes them."""
    folder = Path("set")
    for name in ("data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl",
                 "data/test-00000-of-00001.jsonl", "data/validation.jsonl"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / name)
    (folder / "README.md").write_text("# A set")
    (folder / "dataset_infos.json").write_text("{}")
    return folder


def test_of_a_published_dataset_the_training_split_is_read(dataset: Path) -> None:
    corpus = corpus_of(dataset)
    assert names(corpus, "set/data") == [f"train-0000{n}-of-00002.jsonl" for n in (0, 1)]
    assert kinds(corpus) == {
        "README.md": "dataset card", "dataset_infos.json": ".json",
        "test-00000-of-00001.jsonl": "other split", "validation.jsonl": "other split",
    }  # fmt: skip
    assert names(corpus_of("set/data/validation.jsonl"), "set/data") == ["validation.jsonl"]


def test_plain_text_of_a_folder_is_read_as_ever_and_what_is_beside_it_is_said(
    dataset: Path,
) -> None:
    (dataset / "chapter.md").write_text("Text.")
    (dataset / "chapter.txt.gz").write_bytes(gzip.compress(b"Text."))
    corpus = corpus_of(dataset)
    assert names(corpus, "set") == ["README.md", "chapter.md"]
    assert kinds(corpus)["chapter.txt.gz"] == ".gz"
    assert kinds(corpus)["validation.jsonl"] == ".jsonl"
    (reason,) = {item.reason for item in corpus.left_out if item.kind == ".jsonl"}
    assert "data.include" in reason


def test_patterns_choose_what_is_read(dataset: Path) -> None:
    for name in ("a.py", "deep/b.py", "deep/c.js", ".hidden.py", "__pycache__/d.py"):
        (dataset / name).parent.mkdir(exist_ok=True)
        (dataset / name).write_text("print(1)\n")
    corpus = corpus_of(dataset, include=("*.py",))
    assert names(corpus, "set") == ["a.py", "deep/b.py"]
    assert not corpus.has_documents
    assert texts_of(corpus_of(dataset, include=("*.py",), documents="files")) == ["print(1)\n"] * 2
    corpus = corpus_of(dataset, include=("data/train*", "*.js"))
    assert names(corpus, "set")[-1] == "deep/c.js"
    assert len(texts_of(corpus)) == 2 * len(TEXTS) + 1
    with pytest.raises(CorpusError, match=r"set: no text files \(\*\.rs\) in this folder; left"):
        corpus_of(dataset, include=("*.rs",))


def test_a_pattern_that_the_shell_left_alone_is_expanded(dataset: Path) -> None:
    for name in ("b.md", "a.md", "c.txt", "d.pdf"):
        Path("notes").mkdir(exist_ok=True)
        (Path("notes") / name).write_bytes(b"%PDF-" if name == "d.pdf" else name.encode())
    (Path("notes") / "deep").mkdir()
    corpus = corpus_of("notes/*.md")
    assert (names(corpus, "notes"), corpus.name) == (["a.md", "b.md"], "notes")
    corpus = corpus_of("notes/*")
    assert names(corpus, "notes") == ["a.md", "b.md", "c.txt"]
    assert kinds(corpus) == {"d.pdf": "PDF document", "deep": "folder"}
    with pytest.raises(CorpusError, match=r"notes/\*\.rs: no text file matches"):
        corpus_of("notes/*.rs")
    (Path("notes") / "[1].txt").write_text("a name with brackets")
    assert names(corpus_of("notes/[1].txt"), "notes") == ["[1].txt"]


def test_tables_without_the_column_are_left_out_of_a_folder() -> None:
    Path("set").mkdir()
    write_csv(Path("set/a.csv"))
    Path("set/b.csv").write_text("x,y\n1,2\n")
    corpus = corpus_of("set")
    assert names(corpus, "set") == ["a.csv"]
    assert [item.reason for item in corpus.left_out] == ['no column "text": x, y']


def test_a_dataset_saved_by_hugging_face_is_read() -> None:
    """The layout of `DatasetDict.save_to_disk`."""
    for split in ("train", "test"):
        folder = Path("saved") / split
        folder.mkdir(parents=True)
        for number in range(2):
            write_arrow(folder / f"data-0000{number}-of-00002.arrow")
        write_arrow(folder / "cache-0123.arrow")
        (folder / "state.json").write_text("{}")
        (folder / "dataset_info.json").write_text("{}")
    Path("saved/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    corpus = corpus_of("saved")
    assert texts_of(corpus) == TEXTS * 2
    assert {file.path.parent.name for file in corpus.files} == {"train"}
    assert set(kinds(corpus).values()) == {".json", "cache file", "other split"}
    assert texts_of(corpus_of("saved/test")) == TEXTS * 2


def test_links_of_a_snapshot_in_the_cache_are_followed() -> None:
    blobs, snapshot = Path("hub/set/blobs"), Path("hub/set/snapshots/0123")
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    write_jsonl(blobs / "4567")
    (snapshot / "train.jsonl").symlink_to("../../blobs/4567")
    assert texts_of(corpus_of(snapshot)) == TEXTS
    write_jsonl(Path("hub/other.jsonl"))
    (snapshot / "out.jsonl").symlink_to("../../../other.jsonl")
    assert kinds(corpus_of(snapshot)) == {"out.jsonl": "linked file"}


def test_pieces_are_never_empty() -> None:
    Path("a.jsonl").write_text('{"text": ""}\n{"text": "a"}\n{"text": ""}\n')
    assert list(corpus_of("a.jsonl").pieces()) == [Piece(0, "a", True)]
