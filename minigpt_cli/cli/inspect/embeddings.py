"""`minigpt inspect embeddings`: which tokens the model treats as similar."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table

from minigpt_cli.cli.console import out, print_note
from minigpt_cli.cli.inspect.output import Output, save_plot
from minigpt_cli.cli.inspect.tokens import name_token
from minigpt_cli.cli.loading import CheckpointPath, load
from minigpt_cli.cli.options import Force, Json, Plot
from minigpt_cli.cli.render import grid, needed_width, raw
from minigpt_cli.cli.startup import import_torch
from minigpt_cli.language import _

if TYPE_CHECKING:
    from minigpt_cli.inspection.embeddings import Embeddings

EXAMPLE = "minigpt inspect embeddings --plot embeddings.png"


def show(
    checkpoint: CheckpointPath = None,
    plot: Plot = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show which tokens the model treats as similar.

    Lists the nearest neighbors of the most frequent tokens; --json lists more, and --plot draws a
    map of all.
    """
    import_torch()
    from minigpt_cli.inspection.embeddings import LISTED, project_embeddings

    output = Output(as_json, plot, force=force)
    loaded = load(checkpoint)
    embeddings = project_embeddings(loaded.checkpoint)
    shown = len(embeddings.named) if as_json else min(LISTED, len(embeddings.named))
    if shown < len(embeddings.points):
        which = {
            "word": _("the most frequent"),
            "char": _("those it writes most"),
            "bpe": _("the first that were merged"),
        }
        print_note(
            _("Showing {number} of {tokens:,} tokens: {which}.").format(
                number=shown,
                tokens=len(embeddings.points),
                which=which.get(loaded.checkpoint.tokenizer.kind, _("the first")),
            )
        )
    if plot:
        from minigpt_cli.plots.embeddings import draw_embeddings

        save_plot(draw_embeddings(embeddings, loaded.name), plot)
    output.show(asdict(embeddings), [_table(embeddings)])


def _table(embeddings: "Embeddings") -> Table:
    """One row per token, its most similar tokens first: as many as fit beside each other."""
    most = len(embeddings.named[0].neighbors)
    for near in range(most, 1, -1):
        if needed_width(table := _table_of(embeddings, near)) <= out.width:
            return table
    return _table_of(embeddings, 1)


def _table_of(embeddings: "Embeddings", near: int) -> Table:
    from minigpt_cli.inspection.embeddings import LISTED

    table = grid(
        _("token"), _("kind"), *(_("nearest"), *[""] * (near - 1)), text_columns=2 + near,
        title=raw(_("Nearest neighbors, by cosine")),
    )  # fmt: skip
    points = {point.id: point for point in embeddings.points}
    for point in (points[token] for token in embeddings.frequent[:LISTED]):
        cells = (f"{name_token(n.token)} {n.cosine:.2f}" for n in point.neighbors[:near])
        table.add_row(raw(name_token(point.token)), _(point.kind), *map(raw, cells))
    return table
