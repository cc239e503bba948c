"""JSON lines: an object a line, one of its fields the text."""

import json
from collections.abc import Iterator

from minigpt_cli.data.formats.base import Opened, Part, Reading, no_field, with_line_ends
from minigpt_cli.data.formats.lines import Lines
from minigpt_cli.errors import CorpusError
from minigpt_cli.language import _


def read_jsonl(file: Opened, how: Reading) -> Iterator[Part]:
    """Reads JSON lines; empty lines and records without text (`null`) are passed over."""
    lines = Lines(file, "keep")
    for line in lines:
        if not line.isspace():
            text = _text(line, f"{file.path}:{lines.number}", how.text_field)
            yield Part(with_line_ends(text, how.newlines), True, lines.take_read())
    yield Part("", True, lines.take_read())


def _text(line: str, where: str, field: str) -> str:
    try:
        record = json.loads(line.rstrip())
    except json.JSONDecodeError as error:
        reason = _("{problem} at column {column}").format(problem=error.msg, column=error.colno)
        raise _not_json(where, reason) from None
    except (ValueError, RecursionError) as error:  # endless digits or brackets
        raise _not_json(where, str(error)[:80]) from None
    if not isinstance(record, dict):
        raise CorpusError(
            _(
                '{where}: not a JSON object; each line must be one, as in {{"{field}": "..."}}'
            ).format(where=where, field=field)
        )
    if field not in record:
        raise no_field(where, field, list(record))
    text = record[field]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise CorpusError(
            _('{where}: "{field}" is not text; choose another field').format(
                where=where, field=field
            ),
            settings=("data.text_field",),
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CorpusError(
            _("{where}: half of a character (\\u{code:04x}); repair the text").format(
                where=where, code=ord(text[error.start])
            )
        ) from None
    return text


def _not_json(where: str, reason: str) -> CorpusError:
    return CorpusError(
        _("{where}: not JSON ({reason}); repair or remove the line").format(
            where=where, reason=reason
        )
    )
