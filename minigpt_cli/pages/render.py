"""Rendering of self-contained HTML pages: no network, no script."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from minigpt_cli.io.text import printable
from minigpt_cli.language import _, language, ngettext


def render(template: str, **values: object) -> str:
    """Fills a template of this folder; every value is escaped, control characters too.

    Args:
        template: its file name, such as `surprisal.html.jinja`; it extends `base.html.jinja`.
        values: the variables that the template uses.
    """
    return _environment().get_template(template).render(values)


def _harmless(value: object) -> object:
    """What a page prints for a value; markup from a macro was escaped when the macro ran."""
    return value if hasattr(value, "__html__") else printable(str(value))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("minigpt_cli", "pages"),
        autoescape=True,
        finalize=_harmless,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {"_": _, "ngettext": ngettext, "language": language}
    return environment
