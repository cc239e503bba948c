"""Untrusted text, made safe for terminals and pages; durations as all of them show them."""

import re

# Everything that a terminal may interpret as a command, except tab and line feed; and surrogates,
# which no stream can encode.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with control characters escaped, so that it cannot control the terminal."""
    return _CONTROL.sub(lambda match: repr(match.group())[1:-1], text)


def duration(seconds: float) -> str:
    """A duration with its units: `120 ms`, `24.5 s`, `31 min 43 s` or `1 h 02 min`."""
    if round(seconds * 1000) < 1000:
        return f"{seconds * 1000:.0f} ms"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes:02} min"


def ended(text: str) -> str:
    """The text without what follows its last line, or without the word it breaks off in.

    A first line that is long, or the only one, ends at a word or, in a script without spaces,
    wherever it does; an ellipsis says so.
    """
    lines, line_break, _ = text.rpartition("\n")
    if line_break and len(lines) >= len(text) // 3 and lines.strip():
        return lines
    words, space, _ = text.rpartition(" ")
    return f"{words if space and words.strip() else text} …"
