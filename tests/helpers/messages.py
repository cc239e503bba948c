"""The messages of the program: found in its source, and kept in the catalogs.

`python -m tests.helpers.messages` brings every catalog up to date: new messages are added,
untranslated, and those that no longer exist are removed.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import jinja2
import polib
import typer
from jinja2 import nodes

from minigpt_cli.cli.app import app
from minigpt_cli.cli.listings import first_sentence
from minigpt_cli.config.listing import list_settings
from minigpt_cli.config.presets import preset_names
from minigpt_cli.inspection.embeddings import Kind

PACKAGE = Path(__file__).parents[2] / "minigpt_cli"
CATALOGS = sorted((PACKAGE / "languages").glob("*.po"))
TRANSLATORS = {"_", "in_picture", "mark"}
PLURAL = "ngettext"


@dataclass(frozen=True)
class Message:
    """What a catalog has an entry for."""

    text: str
    plural: str = ""
    context: str = ""


def messages() -> dict[Message, list[str]]:
    """Every message, with the files that it is in."""
    found: dict[Message, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
                _add(found, call.func.id, [_constant(arg) for arg in call.args], path)
    for path in sorted(PACKAGE.rglob("*.jinja")):
        page = jinja2.Environment(autoescape=True).parse(path.read_text(encoding="utf-8"))
        for called in page.find_all(nodes.Call):
            if isinstance(called.node, nodes.Name):
                texts = [getattr(arg, "value", None) for arg in called.args]
                _add(found, called.node.name, texts, path)
    for text, where in _shown_by_name():
        found.setdefault(Message(text), []).append(where)
    return found


def _shown_by_name() -> Iterator[tuple[str, str]]:
    """What is not written as a message, but shown in the user's language."""
    for setting in list_settings():
        yield setting.text, "config/schema.py"
    for preset in preset_names():
        yield first_sentence(preset), "configs"
    for kind in get_args(Kind):
        yield kind, "inspection/embeddings.py"
    for name in ("platform", "processor", "threads", "device"):
        yield name, "pages/report.html.jinja"
    yield from ((text, "cli") for text in _help(typer.main.get_command(app)))


def _help(command: Any) -> Iterator[str]:
    """What `--help` says about a command, its parameters and its own commands."""
    for shown in (command, *command.params):
        for name in ("help", "rich_help_panel", "show_default"):
            text = getattr(shown, name, None)
            if isinstance(text, str) and (name != "show_default" or " " in text):
                yield text
    for inner in getattr(command, "commands", {}).values():
        yield from _help(inner)


def _add(
    found: dict[Message, list[str]], function: str, texts: list[str | None], path: Path
) -> None:
    if not texts or texts[0] is None:
        return  # the name of something, translated where it is shown
    if function == PLURAL:
        message = Message(texts[0], plural=texts[1] or "")
    elif function in TRANSLATORS:
        message = Message(texts[0], context=(texts[1:] or [""])[0] or "")
    else:
        return
    where, files = path.relative_to(PACKAGE).as_posix(), found.setdefault(message, [])
    if where not in files:
        files.append(where)


def _constant(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def untranslated_literals(path: Path) -> list[str]:
    """Texts that a user sees and that no translator was asked for, as `line: text`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [f"{line}: {text}" for line, text in _sentences(tree) if path.name not in _OWN_WORDS]
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and _name(call.func) in _SHOWN | _ERRORS:
            only_first = _name(call.func) in _ERRORS  # then come settings
            for arg in call.args[:1] if only_first else call.args:
                found += [f"{call.lineno}: {text}" for text in _plain_texts(arg)]
    return found


def _sentences(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Literals that read like a message: three words or more, wherever they are."""
    other: set[int] = set()  # translated, or documentation
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) in TRANSLATORS | {PLURAL}:
            other |= {id(inner) for inner in ast.walk(node)}
        elif isinstance(node, ast.keyword) and node.arg in ("help", "show_default"):
            other |= {id(inner) for inner in ast.walk(node)}  # translated where it is shown
        elif isinstance(node, ast.Call) and _name(node.func) in _NAMING:
            other |= {id(inner) for inner in ast.walk(node)}
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            other.add(id(node.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in other:
            words = [
                w for w in (word.strip(",.;:()") for word in node.value.split()) if w.isalpha()
            ]
            is_command = node.value.startswith("minigpt ") or node.value in _NO_MESSAGES
            if len(words) > 2 and sum(word.islower() for word in words) > 1 and not is_command:
                yield node.lineno, node.value


_NO_MESSAGES = {
    "copies in places", "outside lower center", " has no attribute ", "Input should be",
    "Choice of the next token", "documents, validation up to ", "Connection closed by peer",
    "system volume information",
    "from minigpt_cli.data.tokens.encoder_process import main; main()",
}  # fmt: skip
"""Names in data, of others, and of parts of the help, which are translated where it is shown."""
_NAMING = {"Saved", "Accelerator"}
"""Functions whose arguments name parts of a sum, or a publication, and are not shown."""
_OWN_WORDS = {"model_card.py", "playground.py"}
"""Modules of files for other readers: a model card is English, the page has words of its own."""
_SHOWN = {
    "print_note", "print_error", "noted", "_note", "_note_once", "grid", "add_row", "set_title",
    "suptitle", "supxlabel", "supylabel", "set_xlabel", "set_ylabel", "set_label", "set_text",
    "set_label_text", "Picture", "TextColumn", "busy", "status", "progress", "key_value_table",
    "fail", "damaged", "_damaged", "count_progress", "Rule", "render_as",
}  # fmt: skip
"""Functions whose arguments a user reads."""
_ERRORS = {
    "MinigptError", "ConfigError", "CorpusError", "TokenizerError", "CheckpointError",
    "NonFiniteError", "InteropError", "OutOfMemoryError", "TrainingError", "BadParameter",
    "ValueError", "kind", "reraise_out_of_memory", "Text", "raw",
}  # fmt: skip
"""Functions whose first argument a user reads."""


def _plain_texts(node: ast.AST) -> Iterator[str]:
    """The words in an expression, but those inside a translator's call or another call's."""
    if isinstance(node, ast.Call):
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr == "format":
            yield from _plain_texts(function.value)
        return
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str) and any(len(word) > 1 for word in _words(node.value)):
            yield node.value
        return
    if isinstance(node, ast.FormattedValue | ast.IfExp):
        parts = [node.value] if isinstance(node, ast.FormattedValue) else [node.body, node.orelse]
        for part in parts:
            yield from _plain_texts(part)
        return
    if isinstance(node, ast.JoinedStr | ast.BinOp | ast.BoolOp):
        for child in ast.iter_child_nodes(node):
            yield from _plain_texts(child)


def _words(text: str) -> list[str]:
    """The English words of a text: not options, settings, commands or markup."""
    return [
        word for word in text.split() if word.isalpha() and word not in ("minigpt", "dim", "red")
    ]


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def update(path: Path) -> None:
    """Brings a catalog up to date, and keeps its translations."""
    catalog = polib.pofile(path.read_text(encoding="utf-8"), wrapwidth=98)
    known = {Message(e.msgid, e.msgid_plural, e.msgctxt or ""): e for e in catalog}
    catalog.clear()
    for message, files in messages().items():
        entry = known.get(message) or polib.POEntry(
            msgid=message.text, msgctxt=message.context or None, msgid_plural=message.plural,
            msgstr_plural={0: ""} if message.plural else {},
        )  # fmt: skip
        entry.occurrences = [(file, "") for file in files]
        entry.flags = ["python-brace-format"] if "{" in message.text else []
        catalog.append(entry)
    catalog.save(str(path))


if __name__ == "__main__":
    for catalog in CATALOGS:
        update(catalog)
