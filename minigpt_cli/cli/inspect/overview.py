"""`minigpt inspect [FILES]`: runs by their folders, a checkpoint by its header."""

import difflib
import os
from pathlib import Path
from typing import Annotated

import typer

from minigpt_cli.cli.inspect.output import Output
from minigpt_cli.cli.loading import checkpoint_path
from minigpt_cli.cli.options import Force, Json, Plot
from minigpt_cli.cli.typed import is_text, named_run
from minigpt_cli.errors import ConfigError
from minigpt_cli.language import _

EXAMPLE = "minigpt inspect runs/small runs/tiny"

Files = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FILES", help="Run folders, or a safetensors file. Default: the newest checkpoint."
    ),
]
Tensors = Annotated[
    bool, typer.Option("--tensors", help="List every tensor instead of the components.")
]


def show(
    files: Files = None,
    tensors: Tensors = False,
    plot: Plot = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show how runs went or what a checkpoint is (the default view)."""
    from minigpt_cli.cli.inspect.checkpoint import show_file
    from minigpt_cli.cli.inspect.history import show_runs
    from minigpt_cli.interop.hf_folder import WEIGHTS, is_hf_folder
    from minigpt_cli.runs.folder import is_folder

    output = Output(as_json, plot, force=force)
    files = [named_run(path) for path in files or []]
    if len(files) == 1 and is_hf_folder(files[0]):
        files = [files[0] / WEIGHTS]
    _check_words(files)
    if files and not tensors and any(is_folder(path) for path in files):
        show_runs(files, output)
        return
    if files and len(files) > 1:
        raise typer.BadParameter(_("several files cannot be combined; pass one, or run folders"))
    if plot:
        raise typer.BadParameter(_("--plot is not available for this view"))
    show_file(checkpoint_path(files[0] if files else None), tensors, output)


def _check_words(files: list[Path]) -> None:
    """Answers a text, or a misspelled view, with the command that was meant.

    Raises:
        ConfigError: the first word is a text.
        typer.BadParameter: it is a misspelled view, or nothing at all.
    """
    from minigpt_cli.cli.inspect.group import OVERVIEW, VIEWS

    if not files or (word := str(files[0])).endswith(".safetensors"):
        return
    views = [view for view in VIEWS if view != OVERVIEW]
    if is_text(word) and _is_plain(files[0]):
        raise ConfigError(
            _(
                "{word}: not a safetensors file, but a text; use minigpt inspect surprisal "
                "{word} (what a model finds hard in it), minigpt eval {word} or minigpt "
                "tokenize {word}"
            ).format(word=word)
        )
    if os.path.lexists(word):
        return
    if close := difflib.get_close_matches(word.lower(), views, n=1):
        raise typer.BadParameter(
            _("{word}: no such view; did you mean minigpt inspect {close}?").format(
                word=word, close=close[0]
            )
        )
    if len(files) > 1 or " " in word:
        raise typer.BadParameter(
            _("{word}: no such file, run or view (views: {views})").format(
                word=word, views=", ".join(views)
            )
        )


def _is_plain(path: Path) -> bool:
    """Whether a file starts as text; a folder was looked into before."""
    try:
        if not path.is_file():
            return True
        with path.open("rb") as file:
            return b"\0" not in file.read(4096)
    except OSError:
        return False
