"""A run's report: one self-contained page, computed from the run's folder alone."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from minigpt_cli import __version__
from minigpt_cli.errors import MinigptError
from minigpt_cli.inspection.files import Inspection, inspect_file
from minigpt_cli.inspection.run_history import RunHistory
from minigpt_cli.io.text import duration
from minigpt_cli.language import _
from minigpt_cli.pages.render import render
from minigpt_cli.pages.scripts import page_script_hash
from minigpt_cli.plots.canvas import image_bytes
from minigpt_cli.plots.runs import draw_runs
from minigpt_cli.runs.folder import RunFolder, argument

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from minigpt_cli.runs.checkpoint import Checkpoint

MOST_ROWS = 1000
"""Rows in a table: a browser is slow with more."""
MOST_HEADS = 24
"""Heads at most; a model with more shows only those of its last layer."""
MOST_SAMPLES = 8
_READ_TOKENS = 20
_MAP_WIDTH = 4.5
"""Inches of a map: its letters stay legible when a phone shows it whole."""
_NARROW = 6
"""Inches: narrow enough to stay legible on a phone."""
_R = TypeVar("_R")


@dataclass(frozen=True)
class Picture:
    """An image embedded in the page, or the reason it is missing."""

    title: str
    uri: str | None = None
    problem: str | None = None
    caption: str = ""
    """The part of the caption that depends on the model."""


@dataclass(frozen=True)
class Inside:
    """The pictures of the saved model, the slowest part of a report."""

    inspection: Inspection | None
    attention: Picture
    embeddings: Picture


def report_page(
    run: RunHistory,
    inside: Inside | None,
    refresh_seconds: int | None = None,
    playground: str | None = None,
) -> str:
    """The report of a run, as HTML.

    Args:
        run: the history of a finished or running training.
        inside: the pictures of its saved model, if there is one.
        refresh_seconds: how often a browser should reload the page.
        playground: the page of the saved model (from `playground_page`), to embed.
    """
    last = run.evaluations[-1] if run.evaluations else None
    return render(
        "report.html.jinja",
        run=run,
        curves=_picture(_("Loss"), lambda: draw_runs([run], _NARROW)),
        samples=evenly(run.samples, MOST_SAMPLES),
        evaluations=evenly(run.evaluations, MOST_ROWS),
        incidents=run.incidents[:MOST_ROWS],
        inside=inside,
        toml=run.config.to_toml() if run.config else None,
        command=f"minigpt train --preset {argument(RunFolder(run.path).config)}",
        elapsed=duration(last.elapsed) if last and last.elapsed else None,
        refresh_seconds=refresh_seconds,
        playground=playground,
        script_hash=page_script_hash(),
        version=__version__,
    )


def look_inside(folder: RunFolder) -> Inside | None:
    """Draws a run's saved model; None if there is none yet.

    A picture that cannot be drawn says why.
    """
    from minigpt_cli.runs.checkpoint import load_checkpoint

    path, inspection = folder.checkpoint, None
    if not path.exists():
        return None
    try:
        inspection = inspect_file(path)
        checkpoint = load_checkpoint(path)
    except MinigptError as error:
        missing = Picture(_("The model"), problem=str(error))
        return Inside(inspection, missing, missing)
    name = _("{path}, step {step:,}").format(path=folder.path, step=checkpoint.metadata.step)
    return Inside(
        inspection,
        attention=_picture(_("Attention"), lambda: _attention(checkpoint)),
        embeddings=_embeddings(checkpoint, name),
    )


def evenly(rows: Sequence[_R], most: int) -> list[_R]:
    """At most this many rows, evenly spaced, including the first and the last."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]


def _embeddings(checkpoint: "Checkpoint", name: str) -> Picture:
    from minigpt_cli.inspection.embeddings import project_embeddings
    from minigpt_cli.plots.embeddings import draw_embeddings

    try:
        embeddings = project_embeddings(checkpoint)
    except MinigptError as error:
        return Picture(_("Embeddings"), problem=str(error))
    caption = _(
        "The map shows 2 of {n_embd} dimensions, with {explained:.0%} of the variance"
    ).format(n_embd=checkpoint.metadata.model.n_embd, explained=sum(embeddings.explained))
    return _picture(_("Embeddings"), lambda: draw_embeddings(embeddings, name, _MAP_WIDTH), caption)


def _attention(checkpoint: "Checkpoint") -> "Figure":
    """Where the heads look in a few words of the model's own, which it can always read."""
    from minigpt_cli.generation.text import generate
    from minigpt_cli.inspection.attention import attention_maps
    from minigpt_cli.inspection.tokens import visible
    from minigpt_cli.plots.attention import draw_attention_column
    from minigpt_cli.plots.canvas import fitted, in_picture

    config = checkpoint.metadata.model
    length = min(_READ_TOKENS, config.block_size)
    text = "".join(generate(checkpoint, "", length))
    layer = config.n_layer - 1 if config.n_layer * config.n_head > MOST_HEADS else None
    head = 0 if config.n_head > 4 * MOST_HEADS else None
    read = fitted(visible(text), _MAP_WIDTH - 2.4, 10)
    maps = attention_maps(checkpoint, text, layer, head)
    return draw_attention_column(
        maps, in_picture("Where each head looks in “{read}”").format(read=read), _MAP_WIDTH
    )


def _picture(title: str, draw: Callable[[], "Figure"], caption: str = "") -> Picture:
    try:
        figure = draw()
        data = image_bytes(figure, "png")
    except MinigptError as error:
        return Picture(title, problem=str(error))
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return Picture(title, uri, caption=caption)
