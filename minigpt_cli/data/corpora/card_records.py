"""Corpora that are published as JSON: the text in a list of objects."""

from dataclasses import dataclass
from typing import Any

from minigpt_cli.io.strict_json import read_json
from minigpt_cli.language import _


@dataclass(frozen=True)
class Records:
    """A list of JSON objects, and which of their fields make the text."""

    fields: tuple[str, ...]
    """In the order in which they are read."""
    bytes: int
    """Size of the JSON."""
    sha256: str
    """Digest of the JSON."""


def text_of(data: bytes, fields: tuple[str, ...]) -> bytes:
    """The text of a JSON list of objects: a line for each string, a blank line between objects.

    Args:
        data: the JSON, in UTF-8.
        fields: of each object; each is a string or a list of strings.

    Raises:
        ValueError: not such a list.
    """
    records = read_json(data.decode("utf-8"))
    if not isinstance(records, list):
        raise ValueError(_("not a list"))
    texts = ["\n".join(_lines(record, fields)) for record in records]
    return ("\n\n".join(texts) + "\n").encode("utf-8")


def _lines(record: Any, fields: tuple[str, ...]) -> list[str]:
    if not isinstance(record, dict):
        raise ValueError(_("contains something that is not an object"))
    lines: list[str] = []
    for field in fields:
        value = record.get(field)
        for line in value if isinstance(value, list) else [value]:
            if not isinstance(line, str):
                raise ValueError(_("an object has no text in {field}").format(field=field))
            lines.append(line)
    return lines
