"""Messages in the user's language: which one, and that every message has a translation."""

import ast
import os
import re
import string
from pathlib import Path

import polib
import pytest

from minigpt_cli import language
from minigpt_cli.language import _, ngettext
from tests.helpers.messages import CATALOGS, PACKAGE, Message, messages, untranslated_literals

COMMANDS = "tokenize|train|generate|eval|inspect|export"
MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh_CN"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh_CN.UTF-8"}, "zh_CN"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "en_GB"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8", "LANGUAGE": "de:zh_CN:en"}, "zh_CN"),
        ({"LANG": "zh_CN.UTF-8", "LANGUAGE": "en_US:zh"}, "en"),
        ({"LANG": "C.UTF-8", "LANGUAGE": "zh_CN"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "MINIGPT_LANG": "en"}, "en"),
        ({"LC_ALL": "C", "MINIGPT_LANG": "zh"}, "zh_CN"),
        ({"MINIGPT_LANG": "zh-Hans-CN"}, "zh_CN"),
        ({"MINIGPT_LANG": "zh_TW"}, "en"),
        ({"MINIGPT_LANG": "klingon", "LANG": "zh_CN.UTF-8"}, "en"),
    ],
)
def test_language_is_the_one_of_the_environment(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MINIGPT_LANG", "LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert language.language() == expected


def test_messages_are_looked_up_when_they_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (_("step"), ngettext("{number} file", "{number} files", 1)) == ("step", "{number} file")
    monkeypatch.setenv("MINIGPT_LANG", "zh_CN")
    assert (_("step"), ngettext("{number} file", "{number} files", 1)) == ("步", "{number} 个文件")
    assert (_("head"), _("head", "component")) == ("头", "输出头")
    assert _("no such message") == "no such message"


@pytest.fixture(scope="module")
def found() -> dict[Message, list[str]]:
    return messages()


@pytest.fixture(scope="module", params=CATALOGS, ids=lambda path: path.stem)
def catalog(request: pytest.FixtureRequest) -> polib.POFile:
    return polib.pofile(request.param.read_text(encoding="utf-8"))


def test_catalog_has_exactly_the_messages_of_the_program(
    catalog: polib.POFile, found: dict[Message, list[str]]
) -> None:
    entries = {Message(e.msgid, e.msgid_plural, e.msgctxt or "") for e in catalog}
    how = "run: python -m tests.helpers.messages"
    assert entries == set(found), how
    assert len(catalog) == len(entries)


def test_every_message_is_translated_with_the_same_values(catalog: polib.POFile) -> None:
    assert len(catalog) > 700
    for entry in catalog:
        translation = entry.msgstr_plural.get(0) or entry.msgstr
        assert translation.strip(), entry.msgid
        assert "fuzzy" not in entry.flags
        if entry.msgid not in ("[default: {}]", "[env var: {}]"):  # Typer fills them
            allowed = fields(entry.msgid) | fields(entry.msgid_plural)
            missing = {f for f in fields(entry.msgid) if f not in fields(translation)}
            assert fields(translation) <= allowed, entry.msgid
            assert not missing or entry.msgid_plural, entry.msgid
        assert entry.msgid.endswith("\n") == translation.endswith("\n")
        for name in re.findall(rf"--[a-z][\w-]+|minigpt (?:{COMMANDS})", entry.msgid):
            assert name in translation, entry.msgid


def fields(message: str) -> set[tuple[str, str, str]]:
    """The values that a message shows, with their format."""
    parts = string.Formatter().parse(message)
    return {(name, form or "", kind or "") for _text, name, form, kind in parts if name is not None}


def test_what_a_user_reads_is_a_message() -> None:
    literals = {path.relative_to(PACKAGE): untranslated_literals(path) for path in MODULES}
    assert len(literals) > 100
    assert {path: found for path, found in literals.items() if found} == {}


@pytest.mark.parametrize(
    "line",
    [
        'print_note("No such run")',
        'raise ConfigError(f"{path}: no such file")',
        'raise ConfigError("no " + "such file", settings=("data",))',
        'grid(_("step"), "loss")',
        'print_note("Saved" if saved else "Not saved")',
        'return "nothing was saved here"',
    ],
)
def test_a_text_that_is_no_message_is_noticed(line: str, tmp_path: Path) -> None:
    source = f'def f():\n    """Says something in words."""\n    {line}\n'
    (tmp_path / "module.py").write_text(source, encoding="utf-8")
    assert untranslated_literals(tmp_path / "module.py")


def test_translator_is_not_hidden_by_a_variable() -> None:
    for path in MODULES:
        for scope in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(scope, ast.FunctionDef | ast.Lambda):
                assert not hides_translator(scope), f"{path}:{scope.lineno}"


def hides_translator(scope: ast.FunctionDef | ast.Lambda) -> bool:
    """Whether a function translates and has a variable called `_`, which mypy does not notice."""
    nodes = list(ast.walk(scope))
    stores = any(
        isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store) and n.id == "_" for n in nodes
    )
    stores = stores or any(isinstance(n, ast.arg) and n.arg == "_" for n in nodes)
    calls = (n.func for n in nodes if isinstance(n, ast.Call))
    return stores and any(isinstance(called, ast.Name) and called.id == "_" for called in calls)


def test_english_reads_no_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    assert os.environ["MINIGPT_LANG"] == "en"
    language._catalog.cache_clear()
    monkeypatch.setattr(language, "files", None)
    assert _("step") == "step"
    monkeypatch.setenv("MINIGPT_LANG", "zh_CN")
    with pytest.raises(TypeError):
        _("step")
