"""Untrusted text, made safe for terminals and pages; durations as all of them show them."""

import re

from minigpt_cli.language import _

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


def duration(seconds: float) -> str:
    """A duration with its units: `120 ms`, `24.5 s`, `31 min 43 s` or `1 h 02 min`."""
    if round(seconds * 1000) < 1000:
        return _("{seconds:.0f} ms").format(seconds=seconds * 1000)
    if round(seconds, 1) < 60:
        return _("{seconds:.1f} s").format(seconds=seconds)
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return _("{minutes} min {rest:02} s").format(minutes=minutes, rest=rest)
    hours, minutes = divmod(round(seconds / 60), 60)
    return _("{hours:,} h {minutes:02} min").format(hours=hours, minutes=minutes)


def three_digits(number: float) -> str:
    """A positive number in about three digits, never with an exponent: 0.335, 3.06, 17,729."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


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
