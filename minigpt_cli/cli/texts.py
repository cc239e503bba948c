"""The texts that options name: how they are read, their weights, and standard input."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from minigpt_cli.cli.options import in_data
from minigpt_cli.language import _

STDIN = "-"
TextField = Annotated[
    str | None,
    in_data(
        "--text-field",
        help="Field or column of records that has the text.",
        show_default="the field text",
    ),
]
Include = Annotated[
    list[str] | None,
    in_data(
        "--include",
        metavar="PATTERN",
        help="Files to read from folders, as in '*.py'.",
    ),
]
LEARNED = ("char", "word", "byte", "bpe")
"""Kinds of tokenizers that are learned from a text."""
_WEIGHTED = re.compile(r"(.+)=([-+.\w]+)")


def reading_settings(include: list[str] | None, text_field: str | None) -> dict[str, object]:
    """What the options set of how texts are read, by the full name of each setting."""
    named = {"data.include": include, "data.text_field": text_field}
    return {name: value for name, value in named.items() if value is not None}


def tokenizer_settings(value: str | None, option: str = "--tokenizer") -> dict[str, object]:
    """What `--tokenizer` sets: a kind that is learned, or a file.

    Args:
        value: of the option.
        option: its name.

    Raises:
        typer.BadParameter: it is neither.
    """
    if value is None:
        return {}
    if value in (*LEARNED, "pretrained"):
        return {"data.tokenizer": value}
    if not os.path.lexists(value):
        raise typer.BadParameter(
            _("{value} is neither a file or folder nor one of {kinds}").format(
                value=value, kinds=", ".join(LEARNED)
            ),
            param_hint=option,
        )
    return {"data.tokenizer_file": value}


def piped_kept(names: Sequence[str], data_dir: Path, text_field: str | None) -> list[str]:
    """The same names, with the file that keeps it for standard input.

    Raises:
        CorpusError: standard input is empty.
        typer.BadParameter: standard input is the terminal.
    """
    from minigpt_cli.cli.console import print_note
    from minigpt_cli.data.corpora.piped import keep_piped

    if STDIN not in names:
        return list(names)
    if is_terminal():
        raise typer.BadParameter(_("- reads standard input, and nothing is piped into the command"))
    path = keep_piped(sys.stdin.buffer, data_dir, text_field or "text")
    print_note(_("Standard input is kept in {path}").format(path=path))
    return [str(path) if name == STDIN else name for name in names]


def is_terminal() -> bool:
    """Whether standard input is a terminal, where a text would be waited for."""
    return sys.stdin.isatty()


def training_texts(
    data: list[str] | None, val_data: list[str] | None, data_dir: Path, text_field: str | None
) -> dict[str, object]:
    """What `--data` and `--val-data` set, by the full name of each setting.

    Raises:
        CorpusError: standard input is empty.
        typer.BadParameter: only some texts have weights, or standard input is the terminal.
    """
    settings: dict[str, object] = {}
    if data is not None:
        names, weights = weighted(data)
        settings["data.corpus"] = piped_kept(names, data_dir, text_field)
        if weights:
            settings["data.weights"] = weights
    if val_data is not None:
        settings["data.val_corpus"] = piped_kept(val_data, data_dir, text_field)
    return settings


def weighted(names: Sequence[str]) -> tuple[list[str], list[float]]:
    """Names and weights of `NAME=WEIGHT`; no weights where none is given.

    What exists under the whole name is that file, not a weight.

    Raises:
        typer.BadParameter: some have weights and some do not.
    """
    found = [_weighted(name) for name in names]
    weights = [weight for _name, weight in found if weight is not None]
    if weights and len(weights) < len(found):
        without = next(name for name, weight in found if weight is None)
        raise typer.BadParameter(
            _("{name} has no weight: give each text one, or none").format(name=without)
        )
    return [name for name, _weight in found], weights


def _weighted(name: str) -> tuple[str, float | None]:
    match = _WEIGHTED.fullmatch(name)
    if match is None or os.path.lexists(name):
        return name, None
    try:
        return match[1], float(match[2])
    except ValueError:
        return name, None
