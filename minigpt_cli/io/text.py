"""Untrusted text, made safe for terminals and pages."""

import re

# Everything that a terminal may interpret as a command, except tab and line feed; marks that
# reorder the characters after them, and separators that some programs take for a new line
# (Unicode's bidirectional embeddings, overrides and isolates; U+2028 and U+2029); and surrogates,
# which no stream can encode.
_UNSAFE = "\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROL = re.compile(f"[\x00-\x08\x0b-\x1f{_UNSAFE}]")
_UNSAFE_IN_JSON = re.compile(f"[{_UNSAFE}]")


def printable(text: str) -> str:
    """The text with control characters escaped, so that it cannot control the terminal."""
    return _CONTROL.sub(lambda match: ascii(match.group())[1:-1], text)


def printable_line(text: str) -> str:
    """The same with line feeds escaped too, so that a name cannot look like another line."""
    return printable(text).replace("\n", "\\n")


def printable_json(json: str) -> str:
    """JSON with the characters escaped that `json.dumps` leaves and `printable` does not."""
    return _UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match.group()):04x}", json)
