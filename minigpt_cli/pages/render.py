"""Rendering of self-contained HTML pages: no network, no script of others."""

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

from minigpt_cli.io.text import printable

WORKER = ("tokenizer.js", "engine.js", "worker.js")
"""The playground's other thread, which has the model."""
PAGE = ("playground_words.js", "playground.js")
"""The playground's behavior."""


def render(template: str, **values: object) -> str:
    """Fills a template of this folder; every value is escaped, control characters too.

    Args:
        template: its file name, such as `surprisal.html.jinja`; it extends `base.html.jinja`.
        values: the variables that the template uses.
    """
    return _environment().get_template(template).render(values)


def script_hash() -> str:
    """What a policy must allow for the playground's script to run."""
    return sha256(scripts(PAGE))


def scripts(names: tuple[str, ...]) -> str:
    """Scripts of this folder, as one."""
    text = "".join((files(__package__) / name).read_text(encoding="utf-8") for name in names)
    assert "</script" not in text
    return text


def sha256(text: str) -> str:
    """A text's hash, as a Content-Security-Policy has it."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _harmless(value: object) -> object:
    """What a page prints for a value; markup from a macro was escaped when the macro ran."""
    return value if hasattr(value, "__html__") else printable(str(value))


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("minigpt_cli", "pages"),
        autoescape=True,
        finalize=_harmless,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
