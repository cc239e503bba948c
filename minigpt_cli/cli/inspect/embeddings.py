"""`minigpt inspect --embeddings`: which tokens are alike to the model."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.table import Table

from minigpt_cli.cli.console import print_note
from minigpt_cli.cli.inspect.loaded import Loaded
from minigpt_cli.cli.inspect.output import Output
from minigpt_cli.cli.inspect.tokens import name_token
from minigpt_cli.cli.render import grid, raw
from minigpt_cli.inspection.embeddings import Embeddings, project_embeddings


def show_embeddings(loaded: Loaded, output: Output) -> None:
    """Shows the nearest neighbors of each token.

    Args:
        loaded: the model to look at.
        output: where to.
    """
    facts = project_embeddings(loaded.checkpoint)
    if len(facts.named) < len(facts.points):
        which = {"word": "the most frequent", "bpe": "the first that were merged"}
        print_note(
            f"Of {len(facts.points):,} tokens {len(facts.named)} are named: "
            f"{which.get(loaded.checkpoint.tokenizer.kind, 'the first')}."
        )

    def tables() -> Iterator[Table]:
        yield _table(facts)

    def draw() -> Any:
        from minigpt_cli.plots.embeddings import draw_embeddings

        return draw_embeddings(facts, loaded.name)

    output.show(asdict(facts), tables, draw)


def _table(facts: Embeddings) -> Table:
    """A token a row, the most alike first."""
    near = len(facts.named[0].neighbors)
    table = grid(
        "token", "kind", *("nearest", *[""] * (near - 1)), text_columns=2 + near,
        title=raw("Nearest neighbors, by cosine"),
    )  # fmt: skip
    for point in facts.named:
        cells = (f"{name_token(n.token)} {n.cosine:.2f}" for n in point.neighbors)
        table.add_row(raw(name_token(point.token)), point.kind, *map(raw, cells))
    return table
