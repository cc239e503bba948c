"""Untrusted text, made safe for terminals and pages."""

import re

# Everything that a terminal may interpret as a command, except tab and line feed; and surrogates,
# which no stream can encode.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with control characters escaped, so that it cannot control the terminal."""
    return _CONTROL.sub(lambda match: repr(match.group())[1:-1], text)
