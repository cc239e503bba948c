"""`minigpt inspect attention`: where each head looks."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.cells import cell_len, set_cell_size
from rich.table import Table
from rich.text import Text

from minigpt_cli.cli import options
from minigpt_cli.cli.console import in_unicode, out
from minigpt_cli.cli.inspect.output import Output, save_plot
from minigpt_cli.cli.inspect.tokens import name_token, note_unread
from minigpt_cli.cli.loading import CheckpointPath, load
from minigpt_cli.cli.options import Device, Force, Json, Plot
from minigpt_cli.cli.render import grid, raw
from minigpt_cli.cli.startup import import_torch
from minigpt_cli.language import _

if TYPE_CHECKING:
    from minigpt_cli.inspection.attention import Attention

EXAMPLE = 'minigpt inspect attention "ROMEO: But soft" --layer 1 --head 2'
LEAST = (0.5, 0.25, 0.1, 0.02, 0.0)
"""Minimum weight of each shade, darkest first."""
LONGEST = 12
"""Maximum columns of a token's name beside a map."""


def show(
    text: options.Text,
    layer: Annotated[int | None, typer.Option(min=0, help="Only this layer, from 0.")] = None,
    head: Annotated[
        int | None, typer.Option(min=0, help="Only this head of a layer, from 0.")
    ] = None,
    checkpoint: CheckpointPath = None,
    device: Device = "cpu",
    plot: Plot = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show where each attention head looks in a text.

    A table of the heads; with --layer and --head, the map of one head.
    """
    import_torch()
    from minigpt_cli.inspection.attention import attention_maps

    output = Output(as_json, plot, force=force)
    loaded = load(checkpoint, device)
    attention = attention_maps(loaded.checkpoint, text, layer, head)
    read = attention.window
    note_unread(loaded.checkpoint, text, read.left_out, len(read.ids))

    if plot:
        from minigpt_cli.plots.attention import draw_attention

        save_plot(draw_attention(attention, loaded.name), plot)
    output.show(_json(attention), _tables(attention))


def _json(attention: "Attention") -> dict[str, Any]:
    heads = [{**asdict(head), "weights": head.weights.tolist()} for head in attention.heads]
    return {**asdict(attention.window), "heads": heads}


def _tables(attention: "Attention") -> Iterator[Table | Text]:
    yield _heads(attention)
    if len(attention.heads) == 1:
        yield from _map(attention)
    else:
        yield Text(_("--layer L --head H draws that head's map."), "dim")


def _heads(attention: "Attention") -> Table:
    table = grid(
        _("layer"),
        _("head"),
        _("looks back"),
        _("entropy"),
        _("itself"),
        _("previous"),
        _("first"),
        text_columns=0,
    )
    for head in attention.heads:
        table.add_row(
            str(head.layer),
            str(head.head),
            f"{head.distance:.1f}",
            _("{entropy:.2f} bits").format(entropy=head.entropy),
            *(f"{share:.0%}" for share in (head.on_itself, head.on_previous, head.on_first)),
        )
    return table


def _map(attention: "Attention") -> Iterator[Text]:
    """One line per token, with a cell for each token it looks at.

    When a name is wider than a cell, the columns are headed by numbers, read downwards.
    """
    head, names = attention.heads[0], [name_token(token) for token in attention.window.tokens]
    count, margin = len(names), min(LONGEST, max(map(cell_len, names)))
    above: list[Sequence[str]] = [names]
    if numbered := margin > _cell(count, out.width - margin - 1):
        numbers = [f"{i:>{len(str(count - 1))}}" for i in range(count)]
        above = list(zip(*numbers, strict=True))  # one digit per line
        names = [
            f"{number} {set_cell_size(name, margin)}"
            for number, name in zip(numbers, names, strict=True)
        ]
        margin = cell_len(names[0])
    room = out.width - margin - 1
    width = _cell(count, room)
    first = max(0, count - room // width)
    if first:
        yield Text(
            _("The last {number} of {tokens} tokens; --plot draws all.").format(
                number=count - first, tokens=count
            ),
            "dim",
        )
    shades = "█▓▒░ " if in_unicode() else "@*:. "
    for line in above:
        yield raw(f"{'':{margin}} " + "".join(set_cell_size(text, width) for text in line[first:]))
    for i in range(first, count):
        row = "".join(width * shades[_shade(weight)] for weight in head.weights[i, first : i + 1])
        yield raw(f"{set_cell_size(names[i], margin)} {row}")
    legend = _(", ").join(
        f"{shade} {least:.0%}" for shade, least in zip(shades, LEAST, strict=True) if least
    )
    down = _(" Read the numbers downwards.") if numbered else ""
    yield Text(
        _("A row looks at its columns: {legend} or more.{down}").format(legend=legend, down=down),
        "dim",
    )


def _cell(count: int, room: int) -> int:
    """Columns of a cell: two make a square."""
    return 2 if 2 * count <= room else 1


def _shade(weight: float) -> int:
    return next(i for i, least in enumerate(LEAST) if weight >= least)
