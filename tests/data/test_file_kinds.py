"""What a file is, told from its bytes: text passes, everything else is named with a way out."""

import bz2
import gzip
import io
import lzma
import sqlite3
import struct
import sys
import tarfile
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest

from minigpt_cli.data.corpora.file_kinds import HEAD, byte_order_mark, identify, markup_note

ENGLISH = "The keeper of the bridge counts boats, and I count them too.\n" * 40


def zipped(*names: str, first: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        if first:
            archive.writestr("mimetype", first)
        for name in names:
            archive.writestr(name, "<xml/>")
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"), io.BytesIO(b""))
    return buffer.getvalue()


def sound() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(b"\0\1" * 100)
    return buffer.getvalue()


def array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(5))
    return buffer.getvalue()


FILES = {
    "Word document": zipped("[Content_Types].xml", "_rels/.rels", "word/document.xml"),
    "Excel workbook": zipped("[Content_Types].xml", "xl/workbook.xml"),
    "PowerPoint presentation": zipped("[Content_Types].xml", "ppt/presentation.xml"),
    "OpenDocument file": zipped("content.xml", first=b"application/vnd.oasis.opendocument.text"),
    "EPUB book": zipped("OEBPS/a.xhtml", first=b"application/epub+zip"),
    "zip archive": zipped("a.txt"),
    "PDF document": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "RTF document": rb"{\rtf1\ansi Hello\par}",
    "Office document": bytes.fromhex("d0cf11e0a1b11ae1") + bytes(500),
    "gzip file": gzip.compress(ENGLISH.encode()),
    "bzip2 file": bz2.compress(ENGLISH.encode()),
    "xz file": lzma.compress(ENGLISH.encode()),
    "tar archive": tarred(),
    "audio file": sound(),
    "NumPy array": array(),
    "program": Path(sys.executable).resolve().read_bytes()[:HEAD],
    "image": b"\x89PNG\r\n\x1a\n" + bytes(20),
    "video": struct.pack(">I", 24) + b"ftypisom" + bytes(12),
    "font": b"\0\1\0\0\0\x0f" + bytes(100),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_not_text_are_known_by_their_bytes(name: str) -> None:
    found = identify(FILES[name])
    assert found is not None
    assert found.name == name
    assert found.advice


def test_a_database_is_known(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    with sqlite3.connect(path) as connection:
        connection.execute("create table note (text)")
    connection.close()
    found = identify(path.read_bytes())
    assert found is not None
    assert found.name == "SQLite database"


@pytest.mark.parametrize("image", [b"\xff\xd8\xff\xe0\0\x10JFIF", b"GIF89a\1\0", b"II*\0\x08\0",
                                   b"RIFF\x24\0\0\0WEBPVP8 "])  # fmt: skip
def test_every_kind_of_picture_is_an_image(image: bytes) -> None:
    found = identify(image)
    assert found is not None
    assert found.name == "image"


@pytest.mark.parametrize("data", [b"abc\0def", bytes(1000), np.random.default_rng(1).bytes(1000)])
def test_bytes_that_no_text_has_are_binary(data: bytes) -> None:
    found = identify(data)
    assert found is not None
    assert found.name == "binary file"


@pytest.mark.parametrize(
    "text",
    [
        ENGLISH,
        "",
        "MZ is how programs begin, and this sentence.",
        "ID3 tags, OTTO, BZh91, PAR1, Rar, PK, ftyp: words.",
        "OTTO went home",
        "ustar " * 100,
        "\x1b[31mred\x1b[0m\f\ttab\r\n",
        "{not rtf}",
        "%PDX is a sigil",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_text(text: str, encoding: str) -> None:
    assert identify(text.encode(encoding)) is None


@pytest.mark.parametrize("encoding", ["gb18030", "big5", "shift_jis", "euc_jp", "koi8_r", "cp1252"])
def test_text_in_any_encoding_is_text(encoding: str) -> None:
    text = {"koi8_r": "Зима. Ъяы", "cp1252": "ÿþ Übergrößen, café"}.get(encoding, "天地之大 山水")
    assert identify(text.encode(encoding, "ignore") * 300) is None


def test_utf16_without_its_mark_is_named_and_passes_where_the_encoding_says_so() -> None:
    for encoding in ("utf-16-le", "utf-16-be"):
        data = ENGLISH.encode(encoding)
        found = identify(data)
        assert found is not None
        assert found.name == f"{encoding.upper()} text without a byte order mark"
        assert identify(data, wide=True) is None


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_are_told_apart(encoding: str) -> None:
    assert byte_order_mark("a".encode(encoding)) == encoding.removesuffix("-sig")
    assert byte_order_mark(b"a") is None


@pytest.mark.parametrize(
    ("suffix", "head", "note"),
    [
        (".html", b"<p>Hi", "HTML"),
        (".txt", b"\xef\xbb\xbf\n<!DOCTYPE html>", "HTML"),
        (".txt", b"<?xml version='1.0'?>", "XML"),
        (".jsonl", b'{"text": 1}', "JSON"),
        (".txt", b"<3 you", ""),
        (".md", b"{}", ""),
    ],
)
def test_markup_is_noted(suffix: str, head: bytes, note: str) -> None:
    found = markup_note(suffix, head)
    assert note in found
    assert bool(found) == bool(note)
