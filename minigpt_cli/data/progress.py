"""How reading, downloading and preparing a text report their progress."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with the name of the stage, the amount done and the total: bytes, of a text."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Ignores progress."""
