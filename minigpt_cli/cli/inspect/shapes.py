"""`minigpt inspect --shapes`: a text's way through the model."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from minigpt_cli.cli.console import out
from minigpt_cli.cli.inspect.loaded import Loaded
from minigpt_cli.cli.inspect.output import Output
from minigpt_cli.cli.inspect.tokens import note_left_out, note_unknown
from minigpt_cli.cli.render import count, grid, size
from minigpt_cli.inspection.shapes import Shape, ShapeTrace, StepShape, trace_shapes

SPACIOUS = 100


def show_shapes(loaded: Loaded, text: str | None, output: Output) -> None:
    """Shows every step with its shapes, parameters and cost.

    Args:
        loaded: the model to look at.
        text: what it reads; None for a full window.
        output: where to.
    """
    way = trace_shapes(loaded.checkpoint, text)
    note_unknown(loaded, text or "")
    note_left_out(way.left_out, way.tokens)

    def tables() -> Iterator[Table | Text]:
        axes = (f"{axis.letter} {axis.meaning} ({count(axis.size)})" for axis in way.axes)
        yield Text(", ".join(axes), "dim")
        yield _table(way)

    def draw() -> Any:
        from minigpt_cli.plots.shapes import draw_shapes

        return draw_shapes(way, loaded.name)

    output.show(asdict(way), tables, draw)


def _table(way: ShapeTrace) -> Table:
    """The first block in full; the others are alike, and stand in one row."""
    columns = ["step", "in", "out", *(["size"] if _spacious() else [])]
    table = grid(*columns, "parameters", "FLOPs", "bytes", text_columns=len(columns))
    others = [step for step in way.steps if step.layer]
    layer: int | None = None
    for step in way.steps:
        if step.layer == 0 and layer is None:
            table.add_row(Text("block 0", "bold"))
        if step.layer is None and layer is not None and others:
            name = f"blocks 1 to {layer}" if layer > 1 else "block 1"
            empty = [""] * (len(columns) - 1)
            table.add_row(Text(f"{name}, alike", "bold"), *empty, *_costs(others))
        layer = step.layer
        if not layer:
            table.add_row(*_described(step), *_costs([step]))
    table.add_section()
    table.add_row("in all", *[""] * (len(columns) - 1), *_costs(way.steps))
    return table


def _spacious() -> bool:
    return out.width >= SPACIOUS


def _described(step: StepShape) -> list[str]:
    name = step.name if step.layer is None else f" {step.name.removeprefix('attention.')}"
    sizes = "x".join(map(str, step.outputs[0].sizes))
    return [name, _axes(step.inputs), _axes(step.outputs), *([sizes] if _spacious() else [])]


def _costs(steps: Iterable[StepShape]) -> tuple[str, str, str]:
    costs = ((step.parameters, step.flops, step.bytes) for step in steps)
    parameters, flops, memory = map(sum, zip(*costs, strict=True))
    return (
        count(parameters) if parameters else "",
        _short(flops) if flops else "",
        size(memory) if memory else "",
    )


def _axes(shapes: tuple[Shape, ...]) -> str:
    """`B H T D, B K T D`, closer where there is little room; no shape stands there twice."""
    gap = " " if _spacious() else ""
    return ", ".join(dict.fromkeys(shape.axes.replace(" ", gap) for shape in shapes))


def _short(number: float) -> str:
    """1.5 M is 1,500,000."""
    for unit in ("", " k", " M", " G"):
        if number < 1000:
            return f"{number:.0f}" if not unit else f"{number:.1f}{unit}"
        number /= 1000
    return f"{number:.1f} T"
