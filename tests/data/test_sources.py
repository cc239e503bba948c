"""Which files of a folder are read: those that were meant, and nothing passed over unsaid."""

import contextlib
import hashlib
import os
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from minigpt_cli.config.schema import DataConfig
from minigpt_cli.data.corpora.corpus import open_corpus
from minigpt_cli.data.corpora.folders import LeftOut
from minigpt_cli.data.corpora.sources import Sources, count_kinds, find_files
from minigpt_cli.data.dataset import prepare_dataset
from minigpt_cli.errors import CorpusError

Make = Callable[[Path], None]


def write(path: Path, data: str | bytes = "text\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def found(folder: Path | str, encoding: str = "utf-8") -> Sources:
    return find_files(str(folder), encoding, lambda path: False, "no such file")


def names(sources: Sources, folder: Path) -> list[str]:
    return [str(file.path.relative_to(folder)) for file in sources.files]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    write(tmp_path / "notes" / "kept.md")
    return tmp_path / "notes"


# Left out by name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (".trash/old.md", "trash folder"), (".Trash-1000/files/a.txt", "trash folder"),
        ("$RECYCLE.BIN/a.txt", "trash folder"), ("lost+found/a.txt", "trash folder"),
        (".obsidian/a.md", "hidden folder"), ("deep/.cache/x/a.txt", "hidden folder"),
        (".secret.txt", "hidden file"), ("deep/.draft.md", "hidden file"),
        (".git/a.txt", "version control folder"), ("CVS/Entries.txt", "version control folder"),
        (".svn/text.txt", "version control folder"), (".jj/a.txt", "version control folder"),
        ("node_modules/x/README.md", "package folder"), ("__pycache__/a.txt", "package folder"),
        ("lib/site-packages/x/LICENSE.txt", "package folder"),
        ("__MACOSX/a.txt", "resource fork folder"), ("._kept.md", "resource fork"),
        ("a.md~", "backup file"), ("#a.md#", "backup file"), ("a.bak", "backup file"),
        ("a.bak.txt", "backup file"), ("a.txt.orig", "backup file"), ("~$a.txt", "backup file"),
        ("a.docx", ".docx"), ("a.PDF", ".pdf"), ("page.html", ".html"), ("a.json", ".json"),
        ("table.csv", ".csv"), ("code.py", ".py"), ("noending", "other file"),
        ("a.strange name", "other file"), ("a.lock", "lock file"),
    ],
)  # fmt: skip
def test_what_is_not_meant_is_left_out_and_said(notes: Path, name: str, kind: str) -> None:
    write(notes / name, "DELETED SECRET\n")
    sources = found(notes)
    assert names(sources, notes) == ["kept.md"]
    assert [item.kind for item in sources.left_out] == [kind]
    assert all(item.reason for item in sources.left_out)


@pytest.mark.parametrize("marker", ["pyvenv.cfg", "conda-meta"])
def test_environments_of_any_name_are_left_out(notes: Path, marker: str) -> None:
    write(notes / "my env" / marker)
    write(notes / "my env" / "lib" / "LICENSE.txt")
    assert [item.kind for item in found(notes).left_out] == ["virtual environment"]


@pytest.mark.parametrize(
    "name", ["The.Old.Man.txt", "orig.txt", "a.b.c.md", "trashy/a.txt", "git/a.txt", "~tilde.txt",
             "#tag.md", "a.TEX", "a.rst", "a.org", "a.markdown", "a.text", "天地.txt", "node/a.txt"]
)  # fmt: skip
def test_what_only_looks_like_it_is_read(notes: Path, name: str) -> None:
    write(notes / name)
    sources = found(notes)
    assert set(names(sources, notes)) == {name, "kept.md"}
    assert sources.left_out == ()


def test_files_are_in_the_order_of_their_names_folder_by_folder(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a.txt", "a-b.txt", "c/a.txt", "B.txt"):
        write(tmp_path / name)
    assert names(found(tmp_path), tmp_path) == [
        "B.txt", "a/z.txt", "a-b.txt", "a.txt", "b.txt", "c/a.txt"
    ]  # fmt: skip


def test_what_is_named_itself_is_read_even_if_hidden(notes: Path) -> None:
    secret = write(notes / ".trash" / ".old.md")
    assert found(secret).files[0].path == secret
    write(notes / ".trash" / "other.md")
    assert names(found(notes / ".trash"), notes) == [
        ".trash/other.md"
    ]  # the folder, not its hidden


# What minigpt made


def test_a_data_folder_gives_the_users_own_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = Path("data")
    book = write(data / "diary" / "2024.txt", "Dear diary, today I counted boats.\n")
    corpus = open_corpus((str(book),), data)
    prepare_dataset(corpus, DataConfig(), data)
    write(data / "shakespeare" / "input.txt", "damaged, but where minigpt keeps it\n")
    write(Path("runs") / "tiny" / "checkpoint.safetensors")
    write(Path("runs") / "tiny" / "samples.txt")
    write(Path("runs") / "other" / "metrics.jsonl")
    write(Path("runs") / "other" / "config.toml")
    write(Path("runs") / "other" / "notes.md")
    for name in ("data", ".", str(tmp_path)):
        corpus = open_corpus((name,), data)
        assert [file.path.name for file in corpus.files] == ["2024.txt"]
        kinds = Counter(item.kind for item in corpus.left_out)
        assert kinds["prepared text"] == kinds["downloaded text"] == 1
        assert kinds["minigpt run"] == (0 if name == "data" else 2)


def test_a_downloaded_corpus_is_known_in_any_data_folder(
    notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minigpt_cli.data.corpora import corpus as module

    text = b"To be, or not to be.\n"
    write(notes.parent / "cards" / "hamlet.toml", f"""
        name = "hamlet"
        title = "A play"
        file = "input.txt"
        bytes = {len(text)}
        sha256 = "{hashlib.sha256(text).hexdigest()}"
        [wheel]
        requirement = "x"
        sha256 = ""
        member = ""
        [url]
        address = ""
    """)  # fmt: skip
    monkeypatch.setattr(module, "shipped_folder", lambda name: notes.parent / "cards")
    write(notes / "old data" / "hamlet" / "input.txt", text)
    own = write(notes / "mine" / "hamlet" / "input.txt", text[::-1])
    corpus = open_corpus((str(notes),), notes.parent / "data")
    assert [file.path for file in corpus.files] == [notes / "kept.md", own]
    assert [item.kind for item in corpus.left_out] == ["downloaded text"]
    named = open_corpus((str(notes / "old data" / "hamlet" / "input.txt"),), notes.parent / "data")
    assert len(named.files) == 1


# Names


@pytest.mark.parametrize("name", ["", " ", "\t\n"])
def test_an_empty_name_is_refused(name: str) -> None:
    with pytest.raises(CorpusError, match=r"^data\.corpus: an empty name; name a file"):
        open_corpus((name,), Path("data"))


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_file_named_like_a_known_corpus_is_not_passed_over_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_folder: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "minigpt_cli.data.corpora.corpus.downloaded",
        lambda *_: write(tmp_path / "fetched" / "input.txt"),
    )
    assert open_corpus(("shakespeare",), Path("data")).notes == ()
    own = Path("shakespeare")
    write(own / "sonnet.txt" if is_folder else own, "mine")
    (note,) = open_corpus(("shakespeare",), Path("data")).notes
    assert f"to read your {'folder' if is_folder else 'file'} of that name, write ./sh" in note
    mine = open_corpus(("./shakespeare",), Path("data"))
    assert "".join(mine.chunks()) == "mine"
    if is_folder:  # where the data folder is this one, the corpus is kept there
        assert open_corpus(("shakespeare",), Path()).notes == ()


# Links and special files


def test_links_never_lead_out_of_the_folder_nor_to_what_is_left_out(notes: Path) -> None:
    outside = write(notes.parent / "private" / "diary.txt", "SECRET")
    write(notes / ".trash" / "old.md", "SECRET")
    blob = write(notes / "blobs" / "1234", "from a blob\n")
    (notes / "out.txt").symlink_to(outside)
    (notes / "folder.txt").symlink_to(outside.parent)
    (notes / "deleted.md").symlink_to(notes / ".trash" / "old.md")
    (notes / "again.md").symlink_to("kept.md")
    (notes / "named.txt").symlink_to(blob)
    (notes / "loop.txt").symlink_to("loop.txt")
    (notes / "up").symlink_to(notes.parent)
    (notes / "gone.txt").symlink_to("nowhere")
    sources = found(notes)
    assert names(sources, notes) == ["kept.md", "named.txt"]
    kinds = {item.path.name: item.kind for item in sources.left_out}
    assert kinds == {
        "out.txt": "linked file", "folder.txt": "linked folder", "deleted.md": "linked file",
        "again.md": "linked file", "up": "linked folder", "loop.txt": "broken link",
        "gone.txt": "broken link", ".trash": "trash folder", "1234": "other file",
    }  # fmt: skip


def test_a_link_that_is_named_itself_is_followed(notes: Path) -> None:
    (notes.parent / "link").symlink_to(notes)
    assert len(found(notes.parent / "link").files) == 1
    (notes.parent / "link.txt").symlink_to(notes / "kept.md")
    assert found(notes.parent / "link.txt").files[0].path.name == "link.txt"


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)  # the name of a socket is short


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs special files")
@pytest.mark.parametrize("make", [fifo, listening, device])
def test_special_files_are_never_opened(notes: Path, make: Make) -> None:
    path = notes / "pipe.txt"
    make(path)
    sources = found(notes)
    assert names(sources, notes) == ["kept.md"]
    assert [item.path for item in sources.left_out] == [path]
    with pytest.raises(CorpusError, match=r"pipe\.txt: not a regular file .*save it to a file"):
        found(path)


@pytest.mark.parametrize("name", ["locked", "locked/inside", "unreadable.txt"])
def test_what_may_not_be_read_is_refused_and_named(
    notes: Path, unprivileged: None, name: str
) -> None:
    path = notes / name
    write(path if path.suffix else path / "a.txt")
    path.chmod(0)
    try:
        with pytest.raises(CorpusError, match=rf"{path.name}: cannot be read \(Permission denied"):
            found(notes)
    finally:
        path.chmod(0o700)


# By contents


def test_files_that_only_have_a_texts_name_are_left_out(notes: Path) -> None:
    write(notes / "empty.txt", "")
    write(notes / "archive.txt", b"PK\x03\x04 and so on")
    write(notes / "scan.md", b"%PDF-1.4")
    write(notes / "core.txt", b"\x7fELF\0\0")
    write(notes / "raw.txt", b"a\0b")
    sources = found(notes)
    assert names(sources, notes) == ["kept.md"]
    assert {item.path.name: item.kind for item in sources.left_out} == {
        "empty.txt": "empty", "archive.txt": "zip archive", "scan.md": "PDF document",
        "core.txt": "program", "raw.txt": "binary file",
    }  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "gb18030", "auto"])
def test_a_document_named_itself_is_refused_whatever_the_encoding(
    tmp_path: Path, encoding: str
) -> None:
    path = write(tmp_path / "letter.docx", b"PK\x03\x04" + bytes(26) + b"word/document.xml")
    with pytest.raises(CorpusError, match=r"letter\.docx: a Word document, not plain .* save it"):
        found(path, encoding)
    with pytest.raises(CorpusError, match=r"i\.txt: an image, not plain text"):
        found(write(tmp_path / "i.txt", b"\x89PNG\r\n\x1a\n"), encoding)


def test_markup_named_itself_is_read_with_a_note(tmp_path: Path) -> None:
    page = write(tmp_path / "page.html", "<html><p>Hi")
    assert "tags are learned too" in found(page).files[0].note
    assert found(write(tmp_path / "a.csv", "a,b")).files[0].note == ""


def test_each_file_has_its_own_encoding(tmp_path: Path) -> None:
    chinese = "学而时习之，不亦说乎？有朋自远方来，不亦乐乎？\n" * 5
    write(tmp_path / "a.txt", chinese.encode())
    write(tmp_path / "b.txt", chinese.encode("gb18030"))
    write(tmp_path / "c.txt", chinese.encode("utf-16"))
    corpus = open_corpus((str(tmp_path),), tmp_path / "data", "auto")
    assert [file.encoding for file in corpus.files] == ["utf-8", "gb18030", "utf-16"]
    assert "".join(corpus.chunks()) == chinese * 3
    with pytest.raises(CorpusError, match=r"c\.txt: not utf-8: begins with .* of UTF-16; .* auto"):
        found(tmp_path)
    (tmp_path / "c.txt").unlink()
    write(tmp_path / "a.txt", b"\xef\xbb\xbf" + chinese.encode())
    with pytest.raises(CorpusError, match=r"a\.txt: not gb18030: begins with .* of UTF-8"):
        found(tmp_path, "gb18030")


# Summaries


def test_a_folder_without_text_says_what_there_is(tmp_path: Path) -> None:
    for name in ("a.pdf", "b.pdf", ".c.txt", ".d.txt", ".git/e.txt"):
        write(tmp_path / name)
    with pytest.raises(
        CorpusError,
        match=r"no text files \(\.txt, .*; left out: 2 hidden files, 2 \.pdf, 1 version con",
    ):
        found(tmp_path)


def test_kinds_are_counted_the_most_frequent_first() -> None:
    kinds = ["hidden folder", ".docx", ".pdf", "empty", ".pdf", "hidden folder", ".pdf"]
    left_out = tuple(LeftOut(Path("x"), kind, "") for kind in kinds)
    assert count_kinds(left_out) == "3 .pdf, 2 hidden folders, 1 .docx, 1 empty"
    assert count_kinds(()) == ""


def test_kinds_are_counted_in_the_users_language_and_named_alike_in_all(
    notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.pdf", ".git/a.txt", ".svn/a.txt"):
        write(notes / name)
    write(notes / "empty.txt", "")
    left_out = found(notes).left_out
    assert count_kinds(left_out) == "2 version control folders, 1 .pdf, 1 empty"
    monkeypatch.setenv("MINIGPT_LANG", "zh_CN")
    assert count_kinds(left_out) == "版本控制文件夹 2 个，.pdf 1 个，空文件 1 个"
    chinese = found(notes).left_out
    assert [item.kind for item in chinese] == [item.kind for item in left_out]
    assert "不是纯文本；请先另存为纯文本（.txt）" in [item.reason for item in chinese]
