"""Text from outside, made harmless for terminals and pages."""

import re

# Everything a terminal may take for a command, but for tab and line feed; and halves of characters,
# which no stream can write.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with control characters shown as escapes, so that it cannot drive the terminal."""
    return _CONTROL.sub(lambda match: repr(match.group())[1:-1], text)
