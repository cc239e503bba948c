"""JSON from outside, read so that it can mean one thing only."""

import json
from collections import Counter
from typing import Any, NoReturn


def read_json(text: str) -> Any:
    """Reads JSON as its standard has it (RFC 8259), which Python's own reader does not insist on.

    Raises:
        ValueError: it is no JSON, holds NaN or Infinity, says a key twice (readers differ in which
            one counts), or is nested too deeply to be read.
    """
    try:
        return json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"it says {name!r:.80} more than once")
    return values


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}, which is no number")
