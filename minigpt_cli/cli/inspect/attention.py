"""`minigpt inspect --attention`: where each head looks."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.table import Table
from rich.text import Text

from minigpt_cli.cli.console import in_unicode, out
from minigpt_cli.cli.inspect.loaded import Loaded
from minigpt_cli.cli.inspect.output import Output
from minigpt_cli.cli.inspect.tokens import name_token, note_left_out, note_unknown
from minigpt_cli.cli.render import grid, raw
from minigpt_cli.inspection.attention import Attention, attention_maps

LEAST = (0.5, 0.25, 0.1, 0.02, 0.0)
"""The least weight of each shade, darkest first."""
LONGEST = 12


def show_attention(
    loaded: Loaded,
    text: str,
    layer: int | None,
    head: int | None,
    output: Output,
) -> None:
    """Shows a table of heads, or the map of one.

    Args:
        loaded: the model to look at.
        text: what it reads.
        layer: only this one.
        head: only this one of each layer.
        output: where to.
    """
    facts = attention_maps(loaded.checkpoint, text, layer, head)
    note_unknown(loaded, text)
    note_left_out(facts.window.left_out, len(facts.window.ids))

    def tables() -> Iterator[Table | Text]:
        yield _overview(facts)
        if len(facts.heads) == 1:
            yield from _map(facts)
        else:
            yield Text("--layer L --head H draws that head's map.", "dim")

    def draw() -> Any:
        from minigpt_cli.plots.attention import draw_attention

        return draw_attention(facts, loaded.name)

    output.show(_json(facts), tables, draw)


def _json(facts: Attention) -> dict[str, Any]:
    heads = [{**asdict(head), "weights": head.weights.tolist()} for head in facts.heads]
    return {**asdict(facts.window), "heads": heads}


def _overview(facts: Attention) -> Table:
    table = grid(
        "layer", "head", "looks back", "entropy", "itself", "previous", "first", text_columns=0
    )
    for head in facts.heads:
        table.add_row(
            str(head.layer),
            str(head.head),
            f"{head.distance:.1f}",
            f"{head.entropy:.2f} bits",
            *(f"{share:.0%}" for share in (head.on_itself, head.on_previous, head.on_first)),
        )
    return table


def _map(facts: Attention) -> Iterator[Text]:
    """A line a token, a cell for each token that it looks at.

    Where a name is wider than a cell, numbers stand above the columns, read downwards.
    """
    head, names = facts.heads[0], [name_token(token) for token in facts.window.tokens]
    count, margin = len(names), min(LONGEST, max(map(cell_len, names)))
    above: list[Sequence[str]] = [names]
    if numbered := margin > _cell(count, out.width - margin - 1):
        numbers = [f"{i:>{len(str(count - 1))}}" for i in range(count)]
        above = list(zip(*numbers, strict=True))  # a digit a line
        names = [
            f"{number} {set_cell_size(name, margin)}"
            for number, name in zip(numbers, names, strict=True)
        ]
        margin = cell_len(names[0])
    room = out.width - margin - 1
    width = _cell(count, room)
    first = max(0, count - room // width)
    if first:
        yield Text(f"The last {count - first} of {count} tokens; --plot draws all.", "dim")
    shades = "█▓▒░ " if in_unicode() else "@*:. "
    for line in above:
        yield raw(f"{'':{margin}} " + "".join(set_cell_size(text, width) for text in line[first:]))
    for i in range(first, count):
        row = "".join(width * shades[_shade(weight)] for weight in head.weights[i, first : i + 1])
        yield raw(f"{set_cell_size(names[i], margin)} {row}")
    legend = ", ".join(
        f"{shade} {least:.0%}" for shade, least in zip(shades, LEAST, strict=True) if least
    )
    down = " Numbers are read downwards." if numbered else ""
    yield Text(f"A row looks at its columns: {legend} or more.{down}", "dim")


def _cell(count: int, room: int) -> int:
    """Columns of a cell: a square takes two."""
    return 2 if 2 * count <= room else 1


def _shade(weight: np.float32) -> int:
    return next(i for i, least in enumerate(LEAST) if weight >= least)
