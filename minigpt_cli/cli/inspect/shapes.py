"""`minigpt inspect shapes`: the tensors of a forward pass, step by step."""

import os.path
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from minigpt_cli.cli.console import out
from minigpt_cli.cli.inspect.output import Output, save_plot
from minigpt_cli.cli.inspect.tokens import note_unread
from minigpt_cli.cli.loading import CheckpointPath, load
from minigpt_cli.cli.options import Device, Force, Json, Plot, decoded
from minigpt_cli.cli.render import count, grid, short_count, size
from minigpt_cli.cli.startup import import_torch
from minigpt_cli.language import _

if TYPE_CHECKING:
    from minigpt_cli.inspection.shapes import Shape, ShapeTrace, StepShape

EXAMPLE = 'minigpt inspect shapes "ROMEO: But soft"'
SPACIOUS = 100
"""Terminal columns from which sizes are shown too."""


def show(
    text: Annotated[
        str,
        typer.Argument(
            metavar="TEXT",
            help="What the model reads. Default: a full window.",
            callback=decoded,
        ),
    ] = "",
    checkpoint: CheckpointPath = None,
    device: Device = "cpu",
    plot: Plot = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show tensor shapes, parameters and FLOPs at every step of a forward pass."""
    import_torch()
    from minigpt_cli.inspection.shapes import trace_shapes

    if checkpoint is None and os.path.lexists(text):
        raise typer.BadParameter(
            _("{text} is not a text; to choose the model use -c {text}").format(text=text)
        )
    output = Output(as_json, plot, force=force)
    loaded = load(checkpoint, device)
    trace = trace_shapes(loaded.checkpoint, text or None)
    note_unread(loaded.checkpoint, text, trace.left_out, trace.tokens)
    if plot:
        from minigpt_cli.plots.shapes import draw_shapes

        save_plot(draw_shapes(trace, loaded.name), plot)
    axes = (f"{axis.letter} {_(axis.meaning)} ({count(axis.size)})" for axis in trace.axes)
    output.show(asdict(trace), [Text(_(", ").join(axes), "dim"), _table(trace)])


def _table(trace: "ShapeTrace") -> Table:
    """The first block in full; the others are identical and share one row."""
    columns = [_("step"), _("in"), _("out"), *([_("size")] if _spacious() else [])]
    table = grid(*columns, _("parameters"), _("FLOPs"), _("bytes"), text_columns=len(columns))
    others = [step for step in trace.steps if step.layer]
    layer: int | None = None
    for step in trace.steps:
        if step.layer == 0 and layer is None:
            table.add_row(Text(_("block 0"), "bold"))
        if step.layer is None and layer is not None and others:
            name = _("blocks 1 to {layer}").format(layer=layer) if layer > 1 else _("block 1")
            empty = [""] * (len(columns) - 1)
            table.add_row(
                Text(_("{name}, same").format(name=name), "bold"), *empty, *_costs(others)
            )
        layer = step.layer
        if not layer:
            table.add_row(*_described(step), *_costs([step]))
    table.add_section()
    table.add_row(_("total"), *[""] * (len(columns) - 1), *_costs(trace.steps))
    return table


def _spacious() -> bool:
    return out.width >= SPACIOUS


def _described(step: "StepShape") -> list[str]:
    name = step.name if step.layer is None else f" {step.name.removeprefix('attention.')}"
    sizes = "x".join(map(str, step.outputs[0].sizes))
    return [name, _axes(step.inputs), _axes(step.outputs), *([sizes] if _spacious() else [])]


def _costs(steps: "Iterable[StepShape]") -> tuple[str, str, str]:
    costs = ((step.parameters, step.flops, step.bytes) for step in steps)
    parameters, flops, memory = map(sum, zip(*costs, strict=True))
    return (
        count(parameters) if parameters else "",
        short_count(flops) if flops else "",
        size(memory) if memory else "",
    )


def _axes(shapes: "tuple[Shape, ...]") -> str:
    """`B H T D, B K T D`, without spaces on a narrow terminal; each shape only once."""
    gap = " " if _spacious() else ""
    return ", ".join(dict.fromkeys(shape.axes.replace(" ", gap) for shape in shapes))
