"""What a file is, told from its first bytes: plain text, or something else."""

from dataclasses import dataclass

from minigpt_cli.language import _, mark

HEAD = 1 << 16
"""Bytes at a file's beginning that are looked at."""

_SAVE = mark("save it as plain text (.txt) first")
_SAVE_UTF8 = mark("save it as UTF-8 first")
_EXTRACT = mark("extract its files and name those")
_EXPORT = mark("export its text first")
_NAME_TEXT = mark("name a text file")
_NO_TEXT = mark("it holds no text")


@dataclass(frozen=True)
class NotText:
    """A kind of file that is not plain text; both are translated where they are shown."""

    name: str
    advice: str
    """How to get its text, where there is a way."""


_WORD = NotText(mark("Word document"), _SAVE)
_ARCHIVE = NotText(mark("zip archive"), _EXTRACT)
_BINARY = NotText(mark("binary file"), _NAME_TEXT)
# What a zip archive is whose first entries have these names or contents.
_IN_ZIP = (
    (b"mimetypeapplication/epub+zip", NotText(mark("EPUB book"), _SAVE)),
    (b"mimetypeapplication/vnd.oasis.opendocument", NotText(mark("OpenDocument file"), _SAVE)),
    (b"word/", _WORD),
    (b"xl/", NotText(mark("Excel workbook"), mark("save it as CSV (.csv) first"))),
    (b"ppt/", NotText(mark("PowerPoint presentation"), _SAVE)),
)
_SIGNATURES = tuple(
    (offset, magic, NotText(name, advice))
    for name, advice, offset, magics in (
        (mark("PDF document"), mark("extract its text first, as with pdftotext"), 0, (b"%PDF-",)),
        (mark("PostScript document"), mark("extract its text first, as with ps2ascii"), 0,
         (b"%!PS",)),
        (mark("RTF document"), _SAVE, 0, (rb"{\rtf",)),
        (mark("Office document"), _SAVE, 0, (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",)),
        (mark("Mobipocket book"), _SAVE, 60, (b"BOOKMOBI",)),
        (mark("DjVu document"), mark("extract its text first, as with djvutxt"), 0, (b"AT&TFORM",)),
        (mark("image"), _NO_TEXT, 0,
         (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"8BPS",
          b"\0\0\1\0")),
        (mark("image"), _NO_TEXT, 8, (b"WEBP",)),
        (mark("audio file"), _NO_TEXT, 0,
         (b"ID3", b"fLaC", b"OggS", b"MThd", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")),
        (mark("audio file"), _NO_TEXT, 8, (b"WAVE", b"AIFF")),
        (mark("video"), _NO_TEXT, 4, (b"ftyp",)),
        (mark("video"), _NO_TEXT, 8, (b"AVI ",)),
        (mark("video"), _NO_TEXT, 0, (b"\x1aE\xdf\xa3",)),
        (mark("font"), _NO_TEXT, 0, (b"wOFF", b"wOF2", b"OTTO", b"ttcf", b"\0\1\0\0\0")),
        (mark("gzip file"), mark("decompress it first (gunzip)"), 0, (b"\x1f\x8b",)),
        (mark("bzip2 file"), mark("decompress it first (bunzip2)"), 4, (b"1AY&SY",)),
        (mark("xz file"), mark("decompress it first (unxz)"), 0, (b"\xfd7zXZ\0",)),
        (mark("Zstandard file"), mark("decompress it first (unzstd)"), 0, (b"\x28\xb5\x2f\xfd",)),
        (mark("7-Zip archive"), _EXTRACT, 0, (b"7z\xbc\xaf\x27\x1c",)),
        (mark("RAR archive"), _EXTRACT, 0, (b"Rar!\x1a\x07",)),
        (mark("tar archive"), _EXTRACT, 257, (b"ustar",)),
        (mark("SQLite database"), _EXPORT, 0, (b"SQLite format 3\0",)),
        (mark("Parquet table"), _EXPORT, 0, (b"PAR1",)),
        (mark("HDF5 file"), _EXPORT, 0, (b"\x89HDF\r\n",)),
        (mark("NumPy array"), _NAME_TEXT, 0, (b"\x93NUMPY",)),
        (mark("program"), _NAME_TEXT, 0,
         (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"\0asm")),
    )
    for magic in magics
)  # fmt: skip
# A text may begin so too; these count where there is a zero byte, which no text has.
_AMBIGUOUS = (b"ID3", b"PAR1", b"8BPS", b"OTTO", b"wOFF", b"wOF2", b"ftyp", b"WAVE", b"AIFF",
              b"WEBP", b"AVI ", b"MThd", b"OggS", b"fLaC", b"ttcf", b"ustar", b"\xff\xfb",
              b"\xff\xf3", b"\xff\xf2")  # fmt: skip
_BYTE_ORDER_MARKS = (
    ("utf-8", b"\xef\xbb\xbf"),
    ("utf-32", b"\xff\xfe\0\0"),
    ("utf-32", b"\0\0\xfe\xff"),
    ("utf-16", b"\xff\xfe"),
    ("utf-16", b"\xfe\xff"),
)


def byte_order_mark(head: bytes) -> str | None:
    """The encoding that a byte order mark announces."""
    return next((name for name, mark in _BYTE_ORDER_MARKS if head.startswith(mark)), None)


def identify(head: bytes, wide: bool = False) -> NotText | None:
    """What a file is that is not plain text; None for text.

    Args:
        head: the first `HEAD` bytes.
        wide: the encoding has zero bytes in its characters, as UTF-16 has.
    """
    if byte_order_mark(head) is not None:
        return None
    if head.startswith(b"PK\x03\x04"):
        return next((kind for mark, kind in _IN_ZIP if mark in head), _ARCHIVE)
    binary = b"\0" in head
    for offset, magic, kind in _SIGNATURES:
        if head.startswith(magic, offset) and (binary or magic not in _AMBIGUOUS):
            return kind
    if head.startswith(b"MZ") and binary:
        return NotText(mark("program"), _NAME_TEXT)
    if wide or not binary:
        return None
    return _unmarked_wide(head) or _BINARY


def markup_note(path_suffix: str, head: bytes) -> str:
    """What comes along when a file of marked-up text is read as it is; empty for plain text."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")) or path_suffix in (".html", ".htm"):
        return _("HTML or XML: its tags are learned too")
    if path_suffix in (".json", ".jsonl"):
        return _("JSON: its keys and brackets are learned too")
    return ""


def _unmarked_wide(head: bytes) -> NotText | None:
    """UTF-16 without a mark, where every other byte of mostly Latin text is zero."""
    even, odd = head[::2].count(0) / len(head), head[1::2].count(0) / len(head)
    if len(head) < 8 or min(even, odd) > 0.02 or max(even, odd) < 0.2:
        return None
    big = mark("UTF-16-BE text without a byte order mark")
    little = mark("UTF-16-LE text without a byte order mark")
    return NotText(big if even > odd else little, _SAVE_UTF8)
