"""The playground's scripts, and what a Content-Security-Policy says to allow them."""

import base64
import hashlib
from importlib.resources import files

WORKER = ("tokenizer.js", "engine.js", "worker.js")
"""The worker, which runs the model."""
PAGE = ("playground_words.js", "playground.js")
"""The page's behavior."""


def joined(names: tuple[str, ...]) -> str:
    """The scripts of this folder with these names, as one."""
    text = "".join((files(__package__) / name).read_text(encoding="utf-8") for name in names)
    assert "</script" not in text
    return text


def page_script_hash() -> str:
    """The source expression that allows the page's script."""
    return sha256(joined(PAGE))


def sha256(text: str) -> str:
    """The source expression that allows exactly this script or style."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
