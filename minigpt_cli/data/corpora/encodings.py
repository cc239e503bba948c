"""Bytes of text files become characters: which encoding a file has, and reading it strictly."""

import codecs
import io
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from minigpt_cli.config.choices import Newlines
from minigpt_cli.data.corpora.file_kinds import byte_order_mark
from minigpt_cli.data.formats.names import Compression
from minigpt_cli.data.formats.streams import open_stream
from minigpt_cli.errors import CorpusError
from minigpt_cli.language import _, mark

if TYPE_CHECKING:
    from charset_normalizer import CharsetMatch

AUTO = "auto"
_CHUNK = 1 << 20
# Python's encodings of names and program text; some take hours for a megabyte.
_NOT_OF_FILES = {"punycode", "idna", "unicode-escape", "raw-unicode-escape", "undefined", "mbcs"}
_FIX = mark("set data.encoding = auto to detect each file's encoding, or name another")
_SETTING = ("data.encoding=auto",)

# Detection: the bytes of lines that are not ASCII, and how far into the file they are looked for.
_SAMPLE, _SEARCHED = 1 << 16, 1 << 24
# Encodings that are detected, the common ones first: where two read a text alike, the first is
# named. With those of East Asia, the lead bytes of their common characters.
_COMMON_LEADS = {
    "gb18030": range(0xB0, 0xD8),
    "big5": range(0xA4, 0xC7),
    "cp932": range(0x88, 0x98),
    "euc_jp": range(0xB0, 0xD0),
    "cp949": range(0xB0, 0xC9),
}
_LATIN = ("cp1252", "cp1250", "cp1254", "iso8859_2", "mac_roman", "cp850")
_OTHERS = ("cp1251", "koi8_r", "cp866", "cp1253", "cp1255", "cp1256")
_CANDIDATES = (*_LATIN, *_OTHERS, *_COMMON_LEADS)
# The letters beyond a to z of languages in the Latin script; a right reading has one language's.
_ALPHABETS = (
    "äöüß", "àâæçéèêëîïôœùûüÿ", "áéíñóúüªº", "ãáàâçéêíõóôúüªº", "åäöé", "æøåéòóôü",
    "áðéíóúýþæö", "éëïóöüáè", "àèéìòù", "ąćęłńóśźż", "áčďéěíňóřšťúůýž", "áäčďéíĺľňóôŕšťúýž",
    "áéíóöőúüű", "ăâîșțşţ", "čćđšž", "çğıöşüâî", "àéèíïóòúüç",
)  # fmt: skip
_FEWEST = 3
"""Characters beyond ASCII without which there is nothing to tell an encoding by."""
_MARGIN = 0.03
"""By how much the best reading must beat every other."""
# Signs that stand within, after and before a word.
_WITHIN, _AFTER, _BEFORE = "’‘·—\xad\xa0", "’”»…—–°²³™®©\xa0‹›“„«", "‘“„«¿¡—–…’\xa0‹›”»"


def check_encoding(encoding: str) -> None:
    """Checks that an encoding can be that of a text file.

    Raises:
        CorpusError: Python does not know it, or it is not one of text files.
    """
    if encoding == AUTO:
        return
    try:
        "".encode(encoding)  # unlike codecs.lookup, rejects hex and others that do not give text
        known = codecs.lookup(encoding).name not in _NOT_OF_FILES
    except (LookupError, ValueError):
        known = False
    if not known:
        raise CorpusError(
            _(
                "data.encoding = {encoding}: unknown encoding; "
                "common ones: auto, utf-8, gb18030, cp1252, utf-16"
            ).format(encoding=encoding),
            ("data.encoding",),
        )


def is_utf8(encoding: str) -> bool:
    """Whether this is a name of UTF-8."""
    return encoding != AUTO and codecs.lookup(encoding).name == "utf-8"


def is_wide(encoding: str) -> bool:
    """Whether characters have zero bytes in this encoding."""
    return encoding != AUTO and codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))


def check_byte_order_mark(path: Path, head: bytes, encoding: str) -> None:
    """Raises `CorpusError` for a file that announces another encoding than the one that was set."""
    announced = byte_order_mark(head)
    if announced and not codecs.lookup(encoding).name.startswith(announced):
        reason = _("begins with the byte order mark of {announced}")
        raise _not_in(path, encoding, reason.format(announced=announced.upper()))


def decode_file(
    path: Path, encoding: str, newlines: Newlines = "lf", compression: Compression = ""
) -> Iterator[tuple[str, int]]:
    """Pieces of one file with the number of bytes on disk that each was read from.

    Args:
        path: a regular file.
        encoding: any but `auto`; `utf-8` drops a byte order mark.
        newlines: `lf` reads CRLF and CR as LF, `keep` leaves line ends as they are.
        compression: how the file is compressed.

    Raises:
        CorpusError: the file cannot be read, or is not in the encoding.
    """
    utf8 = is_utf8(encoding)
    decoder = codecs.getincrementaldecoder("utf-8-sig" if utf8 else encoding)()
    line_ends = io.IncrementalNewlineDecoder(None, translate=True)
    consumed = position = 0  # bytes of the contents, and of the file, that were read so far
    held_back = False  # whether the next piece decides about a CR at the end of this one
    with open_stream(path, compression) as file:
        while True:
            data = file.read(_CHUNK)
            consumed += len(data)
            before, position = position, file.position
            try:
                text = decoder.decode(data, final=not data)
                if not utf8:
                    text.encode()  # UTF-7 and others can hold halves of characters
            except UnicodeError as error:
                raise _wrong_encoding(path, encoding, consumed, error) from None
            if newlines == "lf" and (held_back or "\r" in text):
                held_back = text.endswith("\r") or (held_back and not text)
                text = line_ends.decode(text, not data)
            yield text, position - before
            if not data:
                return


def _wrong_encoding(path: Path, encoding: str, consumed: int, error: UnicodeError) -> CorpusError:
    reason = str(error)  # a missing byte order mark has no place
    if isinstance(error, UnicodeDecodeError):
        byte = error.object[error.start]
        reason = _("byte {place} (0x{byte:02x}) is not part of any character").format(
            place=_place(error, consumed), byte=byte
        )
    return _not_in(path, encoding, reason)


def _not_in(path: Path, encoding: str, reason: str) -> CorpusError:
    problem = _("{path}: not {encoding}: {reason}; {fix}")
    return CorpusError(
        problem.format(path=path, encoding=encoding, reason=reason, fix=_(_FIX)), _SETTING
    )


def detect_encoding(path: Path, compression: Compression = "") -> str:
    """The encoding of a text file: by its byte order mark, or UTF-8 if it is that, or as it reads.

    Args:
        path: a regular file.
        compression: how it is compressed.

    Raises:
        CorpusError: the file cannot be read, or more than one encoding is likely, or none.
    """
    with open_stream(path, compression) as file:
        head = data = file.read(_CHUNK)
        announced = byte_order_mark(head)
        if announced:
            return announced
        if b"\x1b$B" in head or b"\x1b$@" in head:
            return "iso2022_jp"
        decoder, consumed = codecs.getincrementaldecoder("utf-8")(), 0
        try:
            while data:
                consumed += len(data)
                decoder.decode(data)
                data = file.read(_CHUNK)
            decoder.decode(b"", final=True)
            return "utf-8"
        except UnicodeDecodeError as error:
            place = _place(error, consumed)
        file.seek(max(0, place - _SAMPLE))
        sample = _lines_beyond_ascii(file.read(_SEARCHED))
    if _is_mostly_utf8(sample):
        raise CorpusError(
            _(
                "{path}: UTF-8, but damaged: byte {place} is not part of a character; repair the "
                "file"
            ).format(path=path, place=place)
        )
    return _as_it_reads(path, sample)


def _place(error: UnicodeDecodeError, consumed: int) -> int:
    """Where in a file a decoder failed that has been fed `consumed` bytes of it.

    What it looked at may begin with bytes held back from before, and without a byte order mark;
    but it ends where the file has been read to.
    """
    return consumed - len(error.object) + error.start


def _is_mostly_utf8(sample: bytes) -> bool:
    valid = sample.decode("utf-8", "ignore").encode()
    ascii_bytes = sum(byte < 128 for byte in sample)
    return len(valid) - ascii_bytes >= 0.8 * (len(sample) - ascii_bytes)


def _lines_beyond_ascii(data: bytes) -> bytes:
    """The lines that are not ASCII, which would only drown what tells an encoding."""
    sample = bytearray()
    for line in data.splitlines(keepends=True):
        if not line.isascii():
            sample += line[:_SAMPLE]
        if len(sample) >= _SAMPLE:
            break
    return bytes(sample)


def _as_it_reads(path: Path, sample: bytes) -> str:
    from charset_normalizer import from_bytes

    matches = list(from_bytes(sample, cp_isolation=list(_CANDIDATES), threshold=0.5))
    likely = sorted(filter(_makes_sense, matches), key=_score, reverse=True)
    if likely:
        best = likely[0]
        rivals = [m for m in likely if str(m) != str(best) and _score(m) > _score(best) - _MARGIN]
        if not rivals:
            same = [best.encoding, *best.could_be_from_charset]
            return min(same, key=lambda name: (*_CANDIDATES, name).index(name))
        likely = [best, *rivals]
    names = _(" or ").join(match.encoding for match in likely[:3])
    problem = (
        _("{path}: cannot tell its encoding (perhaps {names})")
        if names
        else _("{path}: cannot tell its encoding")
    ).format(path=path, names=names)
    fix = _("save it as UTF-8, or set data.encoding if all files have the same")
    raise CorpusError(problem + _("; {hint}").format(hint=fix), ("data.encoding",))


def _score(match: "CharsetMatch") -> float:
    return match.coherence - 2 * match.chaos


def _makes_sense(match: "CharsetMatch") -> bool:
    """Whether the characters beyond ASCII are such as a text has, where a text has them."""
    text, name = str(match), match.encoding
    places = [place for place, char in enumerate(text) if not char.isascii()]
    if len(places) < _FEWEST:
        return False
    if name in _COMMON_LEADS:
        return sum(_is_rare(text[place], name) for place in places) <= 0.2 * len(places)
    if match.chaos > 0.1 or sum(_is_misplaced(text, p) for p in places) > 0.02 * len(places):
        return False
    if sum(text[place].isupper() for place in places) > 0.5 * len(places):
        return False
    return name not in _LATIN or _is_one_language(text[place] for place in places)


def _is_rare(char: str, encoding: str) -> bool:
    """Whether this is not an everyday character of East Asia."""
    if unicodedata.category(char) in ("Cc", "Cn", "Co") or "\uff61" <= char <= "\uff9f":
        return True
    if "\u3040" <= char <= "\u30ff":  # kana
        return encoding not in ("cp932", "euc_jp")
    if unicodedata.category(char) != "Lo":
        return False
    data = char.encode(encoding)
    return len(data) != 2 or data[0] not in _COMMON_LEADS[encoding]


def _is_misplaced(text: str, place: int) -> bool:
    """Whether a character stands where a text would not have it: a sign or capital in a word."""
    char, before, after = text[place], text[place - 1 : place], text[place + 1 : place + 2]
    category = unicodedata.category(char)
    if category in ("Cc", "Cn", "Co", "Sk") or (category == "So" and char not in "©®°™¦"):
        return True
    if char.isalpha():
        return (char.isupper() and before.islower()) or (
            char.islower() and before.isupper() and after.isupper()
        )
    if category.startswith("M") or not (before.isalpha() or after.isalpha()):
        return False
    if before.isalpha():
        return char not in (_WITHIN if after.isalpha() else _AFTER)
    return char not in _BEFORE


def _is_one_language(chars: Iterator[str]) -> bool:
    letters = [char.lower()[0] for char in chars if char.isalpha()]
    most = max(sum(letter in alphabet for letter in letters) for alphabet in _ALPHABETS)
    return most >= 0.98 * len(letters)
