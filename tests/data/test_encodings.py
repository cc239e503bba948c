"""Encodings are told where they can be, and never guessed; line ends are read as LF."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt_cli.config.choices import Newlines
from minigpt_cli.data.corpora import encodings as module
from minigpt_cli.data.corpora.encodings import decode_file, detect_encoding
from minigpt_cli.errors import CorpusError

GUIDE = (Path(__file__).parents[2] / "docs" / "guide.zh.md").read_text(encoding="utf-8")
TEXTS = {
    "chinese": GUIDE,
    "traditional": "春眠不覺曉，處處聞啼鳥。夜來風雨聲，花落知多少。舉頭望明月，低頭思故鄉。\n"
    * 20,
    "japanese": "むかしむかし、あるところに、おじいさんとおばあさんが住んでいました。\n" * 20,
    "korean": "나는 오늘 아침에 일찍 일어나서 산책을 했다. 날씨가 매우 좋았다.\n" * 20,
    "french": "À l’été, la forêt s’éveille ; le garçon a reçu où être, dès Noël « déjà ».\n" * 20,
    "german": "Die größten Bäume stehen schön über dem Fluß, und die Mädchen hören zu.\n" * 20,
    "spanish": "¿Dónde está el niño? Mañana volverá con su corazón y una canción.\n" * 20,
    "portuguese": "Não há razão para não começar amanhã; você também já esteve lá, irmão.\n" * 20,
    "swedish": "Det var en gång en flicka som älskade skogen, och på kvällen åt smörgås.\n" * 20,
    "polish": "Dziś piękność twą w całej ozdobie widzę i opisuję, bo tęsknię; źdźbło łąki.\n" * 20,
    "hungarian": "Egyszer volt egy szegény ember; az őszi erdőben sűrű köd ült, és hűvös.\n" * 20,
    "russian": "Все счастливые семьи похожи друг на друга, каждая несчастливая по-своему.\n" * 20,
    "greek": "Σα βγεις στον πηγαιμό για την Ιθάκη, να εύχεσαι νάναι μακρύς ο δρόμος.\n" * 20,
    "hebrew": "בראשית ברא אלהים את השמים ואת הארץ והארץ היתה תהו ובהו וחשך על פני תהום\n" * 20,
    "turkish": "Küçük bir köyde yaşayan çocuk her gün ormana gider, kuşların ışığını severmiş.\n"
    * 20,
}


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def decoded(path: Path, encoding: str, newlines: Newlines = "keep") -> str:
    return "".join(text for text, _ in decode_file(path, encoding, newlines))


@pytest.mark.parametrize(
    ("language", "encoding"),
    [
        ("chinese", "gb18030"), ("chinese", "gbk"), ("traditional", "big5"),
        ("japanese", "shift_jis"), ("japanese", "euc_jp"), ("japanese", "iso2022_jp"),
        ("korean", "euc_kr"), ("french", "cp1252"), ("german", "latin-1"), ("german", "cp850"),
        ("german", "mac_roman"), ("spanish", "cp1252"), ("portuguese", "cp1252"),
        ("swedish", "cp1252"), ("polish", "cp1250"), ("polish", "iso8859-2"),
        ("hungarian", "cp1250"), ("russian", "cp1251"), ("russian", "koi8-r"),
        ("russian", "cp866"), ("greek", "cp1253"), ("hebrew", "cp1255"), ("turkish", "cp1254"),
    ],
)  # fmt: skip
def test_detected_encoding_reads_the_text_back(
    tmp_path: Path, language: str, encoding: str
) -> None:
    data = TEXTS[language].encode(encoding, "ignore")
    path = written(tmp_path / "a.txt", data)
    assert decoded(path, detect_encoding(path)) == data.decode(encoding)


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_is_known_without_guessing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str, encoding: str
) -> None:
    monkeypatch.setattr(module, "_as_it_reads", None)
    path = written(tmp_path / "a.txt", TEXTS[language].encode(encoding))
    assert detect_encoding(path) == encoding.removesuffix("-sig")


def test_ascii_and_nothing_are_utf8(tmp_path: Path) -> None:
    assert detect_encoding(written(tmp_path / "a.txt", b"plain")) == "utf-8"
    assert detect_encoding(written(tmp_path / "b.txt", b"")) == "utf-8"


@pytest.mark.parametrize(
    "data",
    [
        "café".encode("cp1252"),  # one character tells nothing
        "你好".encode("gb18030"),
        "天地".encode("big5"),
        bytes(range(128, 256)) * 3,
    ],
)
def test_what_could_be_several_encodings_is_refused(tmp_path: Path, data: bytes) -> None:
    path = written(tmp_path / "a.txt", data)
    with pytest.raises(CorpusError, match=r"a\.txt: cannot tell its encoding.*save it as UTF-8"):
        detect_encoding(path)


def test_likely_encodings_are_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "När får vi gå ut på kvällen".encode("cp1252"))
    with pytest.raises(CorpusError, match=r"\(perhaps cp\d+ or "):
        detect_encoding(path)


def test_the_place_where_utf8_ends_may_be_far_into_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 64)
    data = b"plain English, line after line\n" * 100 + TEXTS["russian"].encode("cp1251")
    assert detect_encoding(written(tmp_path / "a.txt", data)) == "cp1251"
    cut = "天" * 100  # a character lies across two pieces
    assert detect_encoding(written(tmp_path / "b.txt", cut.encode())) == "utf-8"


@pytest.mark.parametrize("language", ["chinese", "french", "russian"])
@pytest.mark.parametrize("damage", ["cut", "byte", "piece"])
def test_damaged_utf8_is_not_taken_for_another_encoding(
    tmp_path: Path, language: str, damage: str
) -> None:
    data = TEXTS[language].encode().rstrip(b".\n")
    place = next(i for i in range(len(data) // 2, len(data)) if data[i] >= 0xC0)
    damaged = {
        "cut": data[: place + 1],
        "byte": data[:place] + b"\xff" + data[place:],
        "piece": data[:place] + "天".encode("gb18030") + data[place:],
    }[damage]
    with pytest.raises(CorpusError, match=r"a\.txt: UTF-8, but damaged: byte \d+ is not part"):
        detect_encoding(written(tmp_path / "a.txt", damaged))


@given(
    st.lists(st.sampled_from(["\r", "\n", "\r\n", "a", "天", "\u2028", "\x85"]), max_size=30),
    st.sampled_from(["utf-8", "utf-16", "gb18030"]),
    st.integers(1, 7),
)
def test_line_ends_are_lf_wherever_the_pieces_are_cut(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], encoding: str, size: int
) -> None:
    text = "".join(parts)
    path = written(tmp_path_factory.getbasetemp() / "ends.txt", text.encode(encoding))
    expected = io.StringIO(text, newline=None).read()  # Python's own universal newlines
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", size)
        assert decoded(path, encoding, "lf") == expected
        assert decoded(path, encoding, "keep") == text
        assert sum(n for _, n in decode_file(path, encoding)) == path.stat().st_size
