"""Text from a pipe, kept in a file: a text is read more than once, and again by a resumed run."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from minigpt_cli.errors import CorpusError, reraise_as
from minigpt_cli.language import _

_CHUNK = 1 << 20


def keep_piped(stream: BinaryIO, data_dir: Path, text_field: str) -> Path:
    """Writes what a stream gives to a file that is named after its contents.

    Args:
        stream: read to its end.
        data_dir: where texts are kept.
        text_field: JSON lines are known by a first line that is an object with this field.

    Raises:
        CorpusError: the stream is empty, or the file cannot be written.
    """
    digest = hashlib.sha256()
    with reraise_as(CorpusError, _("standard input"), "read"):
        data = stream.read(_CHUNK)
    if not data:
        raise CorpusError(_("standard input is empty; pipe a text into the command"))
    suffix = ".jsonl" if _is_json_lines(data, text_field) else ".txt"
    hint = _("free some space or choose another data folder")
    with reraise_as(CorpusError, data_dir, "written", hint=hint, settings=("data_dir",)):
        data_dir.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(".part", ".piped-", data_dir)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                while data:
                    digest.update(data)
                    file.write(data)
                    data = stream.read(_CHUNK)
                file.flush()
                os.fsync(file.fileno())
            path = data_dir / f"piped-{digest.hexdigest()[:8]}{suffix}"
            return temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _is_json_lines(data: bytes, text_field: str) -> bool:
    try:
        record = json.loads(data.split(b"\n", 1)[0])
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and text_field in record
