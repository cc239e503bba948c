"""The language of messages: English, or another one that has a catalog.

A message is written in English where it is used, as `_("step {step}").format(step=…)`, and looked
up in `languages/<language>.po`, which is read when the first message is wanted. Names that programs
read (settings, metrics, the keys of `--json`, file formats) are the same in all languages.
"""

import os
from functools import cache
from importlib.resources import files

ENGLISH = "en"
VARIABLE = "MINIGPT_LANG"
_CATALOGS = {"zh": "zh_CN", "zh_cn": "zh_CN", "zh_sg": "zh_CN", "zh_hans": "zh_CN"}
"""The catalog of a language, by its name as `LANG` has it, in small letters."""


def _(message: str, context: str = "") -> str:
    """A message in the user's language.

    Args:
        message: in English.
        context: tells messages apart that are the same word in English only, as gettext's does.
    """
    return _catalog(language()).get(_key(message, context), message)


def ngettext(one: str, many: str, number: int) -> str:
    """A message about a number of things in the user's language.

    A catalog has one form of it, for `many`: enough for languages without a plural.
    """
    return (one if number == 1 else many) if language() == ENGLISH else _(many)


def mark(message: str, context: str = "") -> str:  # noqa: ARG001 - for the catalogs
    """Puts a message in the catalogs that is translated elsewhere: where it is shown."""
    return message


def language() -> str:
    """The language the user wants: a catalog's name, or English where there is none.

    `MINIGPT_LANG` decides, else the locale: LC_ALL, LC_MESSAGES or LANG, whichever is set first.
    As in gettext, LANGUAGE lists what is preferred to the locale's language, unless that is C.
    """
    wanted = os.environ.get(VARIABLE, "")
    if not wanted:
        names = ("LC_ALL", "LC_MESSAGES", "LANG")
        locale = next((value for name in names if (value := os.environ.get(name))), "C")
        plain = locale.partition(".")[0] in ("C", "POSIX")
        wanted = ENGLISH if plain else os.environ.get("LANGUAGE") or locale
    for name in wanted.split(":"):
        if found := _known(name):
            return found
    return ENGLISH


def _known(name: str) -> str | None:
    """The catalog for a locale such as `zh_CN.UTF-8`, English for one of English, or None."""
    tag = name.partition(".")[0].partition("@")[0].replace("-", "_").lower()
    if tag.partition("_")[0] == ENGLISH:
        return ENGLISH
    script = "_".join(tag.split("_")[:2])  # zh_Hans_CN is zh_Hans
    return _CATALOGS.get(script)


def _key(message: str, context: str) -> str:
    return f"{context}\4{message}" if context else message


@cache
def _catalog(name: str) -> dict[str, str]:
    """The translations of a language; empty for English."""
    if name == ENGLISH:
        return {}
    import polib  # English users do not wait for it

    text = (files(__package__) / "languages" / f"{name}.po").read_text(encoding="utf-8")
    return {
        _key(entry.msgid_plural or entry.msgid, entry.msgctxt or ""): entry.msgstr_plural.get(0)
        or entry.msgstr
        for entry in polib.pofile(text)
    }
