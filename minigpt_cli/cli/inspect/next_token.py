"""`minigpt inspect --next`: what may follow a text."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.table import Table

from minigpt_cli.cli.inspect.loaded import Loaded
from minigpt_cli.cli.inspect.output import Output
from minigpt_cli.cli.inspect.tokens import note_left_out, note_unknown
from minigpt_cli.cli.likeliest import distribution
from minigpt_cli.generation.sampling import Sampling
from minigpt_cli.inspection.next_token import next_token
from minigpt_cli.inspection.tokens import window

TOP = 20
TOP_K, TOP_P = 10, 0.9


def show_next(
    loaded: Loaded,
    text: str,
    top_k: int | None,
    top_p: float | None,
    output: Output,
) -> None:
    """Shows the likeliest next tokens at three temperatures, and where settings would cut.

    Args:
        loaded: the model to look at.
        text: what it reads.
        top_k: this many would be kept; 10 unless given.
        top_p: this share would be kept; 0.9 unless given.
        output: where to.

    Raises:
        ConfigError: a setting is outside its range.
    """
    cuts = (Sampling(top_k=TOP_K if top_k is None else top_k),
            Sampling(top_p=TOP_P if top_p is None else top_p))  # fmt: skip
    read = window(loaded.checkpoint, text)
    note_unknown(loaded, text)
    note_left_out(read.left_out, len(read.ids))
    facts = next_token(loaded.checkpoint, text, read.ids, Sampling(temperature=1.0), TOP, cuts)

    def tables() -> Iterator[Table]:
        yield distribution(facts)

    def draw() -> Any:
        from minigpt_cli.plots.next_token import draw_next

        return draw_next(facts, loaded.name)

    output.show(asdict(facts), tables, draw)
