"""Untrusted JSON, read strictly so that it has only one meaning."""

import json
from collections import Counter
from typing import Any, NoReturn


def read_json(text: str) -> Any:
    """Parses JSON by its standard (RFC 8259), which Python's own parser does not enforce.

    Raises:
        ValueError: not JSON, contains NaN or Infinity, has a duplicate key (parsers differ in which
            one they keep), or is nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"duplicate key {name!r:.80}")
    return values


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"contains {constant}")
