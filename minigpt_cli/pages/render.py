"""Facts become HTML pages that need nothing but themselves: no network, no script."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from minigpt_cli.io.text import printable


def render(template: str, **facts: object) -> str:
    """Fills a page of this folder; every fact is escaped, control characters too.

    Args:
        template: its file name, such as `surprisal.html.jinja`; it extends `base.html.jinja`.
        facts: what the template names.
    """
    return _environment().get_template(template).render(facts)


def _harmless(fact: object) -> object:
    """What a page prints of a fact; of what a macro made, the facts went through here before."""
    return fact if hasattr(fact, "__html__") else printable(str(fact))


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
