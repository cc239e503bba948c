"""A run's report: all that is known of it, on one page that needs nothing but itself.

It is computed from the files in the run's folder alone.
"""

import base64
import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from minigpt_cli import __version__
from minigpt_cli.errors import MinigptError
from minigpt_cli.inspection.files import Inspection, inspect_file
from minigpt_cli.inspection.run_history import RunHistory
from minigpt_cli.pages.render import render, script_hash
from minigpt_cli.plots.canvas import image_bytes, smallest_letters
from minigpt_cli.plots.runs import draw_runs
from minigpt_cli.runs.folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from minigpt_cli.runs.checkpoint import Checkpoint

MOST_HEADS = 24
"""A model with more heads shows those of its last layer."""
MOST_SAMPLES = 8
_READ_TOKENS = 20
_NARROW = 6
"""Inches: shrunk to a telephone's width, letters can still be read."""
_SMALLEST = 9
"""CSS pixels of a map's smallest letters, however narrow the page."""
_R = TypeVar("_R")


@dataclass(frozen=True)
class Picture:
    """An image that lies in the page itself, or why there is none."""

    title: str
    uri: str | None = None
    problem: str | None = None
    caption: str = ""
    """What only its facts can tell."""
    legible: int = 0
    """CSS pixels: at this width its smallest letters can still be read."""


@dataclass(frozen=True)
class Inside:
    """What the saved model shows; to compute it takes most of a report's time."""

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
        run: what its folder tells; it may still be going.
        inside: its saved model, if there is one.
        refresh_seconds: how often a browser shall look for a newer page.
        playground: the page of its saved model (see `playground_page`), to be opened inside.
    """
    last = run.evaluations[-1] if run.evaluations else None
    return render(
        "report.html.jinja",
        run=run,
        curves=_picture("Loss", lambda: draw_runs([run], _NARROW)),
        samples=evenly(run.samples, MOST_SAMPLES),
        inside=inside,
        toml=run.config.to_toml() if run.config else None,
        command=f"minigpt train --preset {shlex.quote(str(RunFolder(run.path).config))}",
        elapsed=_clock(last.elapsed) if last and last.elapsed else None,
        refresh_seconds=refresh_seconds,
        playground=playground,
        script_hash=script_hash(),
        version=__version__,
    )


def look_inside(folder: RunFolder) -> Inside | None:
    """Looks at a run's saved model, from outside and with its own words; None before there is one.

    What cannot be shown says why in its place.
    """
    from minigpt_cli.runs.checkpoint import load_checkpoint

    path, inspection = folder.checkpoint, None
    if not path.exists():
        return None
    try:
        inspection = inspect_file(path)
        checkpoint = load_checkpoint(path)
    except MinigptError as error:
        missing = Picture("The model", problem=str(error))
        return Inside(inspection, missing, missing)
    name = f"{folder.path}, step {checkpoint.metadata.step:,}"
    return Inside(
        inspection,
        attention=_picture("Attention", lambda: _attention(checkpoint, name)),
        embeddings=_embeddings(checkpoint, name),
    )


def evenly(rows: Sequence[_R], most: int) -> list[_R]:
    """At most so many rows, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]


def _clock(seconds: float) -> str:
    """Such as 0:01:15; past a day the hours go on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}:{minutes:02}:{rest:02}"


def _embeddings(checkpoint: "Checkpoint", name: str) -> Picture:
    from minigpt_cli.inspection.embeddings import project_embeddings
    from minigpt_cli.plots.embeddings import draw_embeddings

    try:
        facts = project_embeddings(checkpoint)
    except MinigptError as error:
        return Picture("Embeddings", problem=str(error))
    caption = (
        f"It shows two of {checkpoint.metadata.model.n_embd} directions, with "
        f"{sum(facts.explained):.0%} of the differences"
    )
    return _picture("Embeddings", lambda: draw_embeddings(facts, name), caption)


def _attention(checkpoint: "Checkpoint", name: str) -> "Figure":
    """Where the heads look in a few words of the model's own, which it can always read."""
    from minigpt_cli.generation.text import generate
    from minigpt_cli.inspection.attention import attention_maps
    from minigpt_cli.plots.attention import draw_attention

    config = checkpoint.metadata.model
    length = min(_READ_TOKENS, config.block_size)
    text = "".join(generate(checkpoint, "", length))
    layer = config.n_layer - 1 if config.n_layer * config.n_head > MOST_HEADS else None
    return draw_attention(attention_maps(checkpoint, text, layer), name)


def _picture(title: str, draw: Callable[[], "Figure"], caption: str = "") -> Picture:
    try:
        figure = draw()
        data = image_bytes(figure, "png")
    except MinigptError as error:
        return Picture(title, problem=str(error))
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    width = math.ceil(figure.get_figwidth() * 72 * _SMALLEST / smallest_letters(figure))
    return Picture(title, uri, caption=caption, legible=width)
