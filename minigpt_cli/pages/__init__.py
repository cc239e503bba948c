"""Facts become HTML pages that need nothing but themselves: no network, no script."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, **facts: object) -> str:
    """Fills a page of this folder; every fact is escaped, whatever it holds.

    Args:
        template: its file name, such as `surprisal.html.jinja`; it extends `base.html.jinja`.
        facts: what the template names.
    """
    page = _environment().get_template(template).render(facts)
    return page.encode("utf-8", "replace").decode()  # a lone surrogate is no character


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("minigpt_cli", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
