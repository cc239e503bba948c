"""JSON by its standard: read strictly so that it has only one meaning, written without NaN."""

import json
import math
from collections import Counter
from typing import Any, NoReturn

from minigpt_cli.language import _


def read_json(text: str) -> Any:
    """Parses JSON by its standard (RFC 8259), which Python's own parser does not enforce.

    Raises:
        ValueError: not JSON, contains NaN or Infinity, has a duplicate key (parsers differ in which
            one they keep), or is nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError(_("nested too deeply")) from None


def write_json(value: Any, indent: int | None = None, in_ascii: bool = False) -> str:
    """A value as JSON by its standard: NaN and infinity, which it cannot write, become null."""
    try:
        return json.dumps(value, ensure_ascii=in_ascii, allow_nan=False, indent=indent)
    except ValueError:
        finite = _without_nan(value)
        return json.dumps(finite, ensure_ascii=in_ascii, allow_nan=False, indent=indent)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        name, _times = Counter(name for name, _value in pairs).most_common(1)[0]
        raise ValueError(_("duplicate key {name!r:.80}").format(name=name))
    return values


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(_("contains {constant}").format(constant=constant))
