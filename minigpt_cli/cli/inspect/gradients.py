"""`minigpt inspect --gradients`: what one batch would change."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from rich.table import Table
from rich.text import Text

from minigpt_cli.cli.console import print_note
from minigpt_cli.cli.inspect.loaded import Loaded
from minigpt_cli.cli.inspect.output import Output
from minigpt_cli.cli.render import count, file_progress, grid
from minigpt_cli.data.workspace import Workspace
from minigpt_cli.inspection.gradients import Gradients, ParameterGradient, State, own_gradients

MARKS: dict[State, tuple[str, str]] = {
    "fine": ("", ""),
    "dead": ("dead", "magenta"),
    "exploding": ("exploding", "red"),
    "no gradient": ("NO GRADIENT", "bold red"),
}


def show_gradients(loaded: Loaded, data_dir: Path, output: Output) -> None:
    """Shows how long the gradient of each parameter is, and how long its weights are.

    Args:
        loaded: the model to look at.
        data_dir: where prepared texts are kept.
        output: where to.

    Raises:
        CorpusError: the model's own text is not there any more.
    """
    with file_progress() as progress:
        dataset = Workspace(data_dir, progress).own_dataset(loaded.checkpoint.metadata)
    facts = own_gradients(loaded.checkpoint, dataset)
    if not facts.as_in_run:
        print_note(
            "The checkpoint does not record its training settings (minigpt 0.1.0 wrote it); using "
            "the default batch size and seed."
        )

    def tables() -> Iterator[Table | Text]:
        yield _table(facts)
        yield Text(_found(facts))

    def draw() -> Any:
        from minigpt_cli.plots.gradients import draw_gradients

        return draw_gradients(facts, loaded.name)

    output.show(_json(facts), tables, draw)


def _json(facts: Gradients) -> dict[str, Any]:
    """JSON has no number for what is not finite: that is null, and `exploding`."""
    parameters = [
        {**asdict(one), "gradient_norm": _finite(one.gradient_norm),
         "weight_norm": _finite(one.weight_norm), "ratio": _finite(one.ratio), "state": one.state}
        for one in facts.parameters
    ]  # fmt: skip
    return {
        **asdict(facts),
        "loss": _finite(facts.loss),
        "norm": _finite(facts.norm),
        "parameters": parameters,
    }


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def _table(facts: Gradients) -> Table:
    table = grid(
        "parameter", "shape", "gradient", "weights", "ratio", "", text_columns=2,
        title=Text(
            f"The batch of step {count(facts.step)}: {facts.windows} windows, "
            f"{count(facts.tokens)} tokens, loss {facts.loss:.4f}"
        ),
    )  # fmt: skip
    for one in facts.parameters:
        mark, color = MARKS[one.state]
        table.add_row(
            one.name.removesuffix(".weight"), "x".join(map(str, one.shape)),
            *map(_number, (one.gradient_norm, one.weight_norm, one.ratio)), Text(mark, color),
        )  # fmt: skip
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _found(facts: Gradients) -> str:
    """What is wrong, or that nothing is."""
    said = [
        f"{_names([one for one in facts.parameters if one.state == state])}: {state}"
        for state in get_args(State)[1:]
        if any(one.state == state for one in facts.parameters)
    ]
    if not said:
        said = [f"all {len(facts.parameters)} parameters have one; none is dead, none explodes"]
    return f"Gradient norm {facts.norm:.3g} in all; {'; '.join(said)}."


def _names(found: list[ParameterGradient]) -> str:
    names = ", ".join(one.name.removesuffix(".weight") for one in found[:3])
    return names + (f" and {len(found) - 3} more" if len(found) > 3 else "")
