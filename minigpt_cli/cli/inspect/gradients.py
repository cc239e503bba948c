"""`minigpt inspect gradients`: the gradient norms of one training batch."""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from minigpt_cli.cli.console import print_note
from minigpt_cli.cli.inspect.output import Output, save_plot
from minigpt_cli.cli.loading import CheckpointPath, load
from minigpt_cli.cli.options import DEFAULT_DATA_DIR, DataDir, Device, Force, Json, Plot, Verify
from minigpt_cli.cli.render import count, file_progress, grid, number
from minigpt_cli.cli.startup import import_torch
from minigpt_cli.language import _, mark

if TYPE_CHECKING:
    from minigpt_cli.inspection.gradients import Gradients, ParameterGradient, State

EXAMPLE = "minigpt inspect gradients -c runs/small"
MARKS: "dict[State, tuple[str, str]]" = {
    "fine": ("", ""),
    "dead": (mark("dead"), "magenta"),
    "exploding": (mark("exploding"), "red"),
    "no gradient": (mark("NO GRADIENT"), "bold red"),
}


def show(
    checkpoint: CheckpointPath = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    verify: Verify = False,
    device: Device = "cpu",
    plot: Plot = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show gradient norms for one training batch, per parameter."""
    import_torch()
    from minigpt_cli.data.workspace import Workspace
    from minigpt_cli.inspection.gradients import own_gradients

    output = Output(as_json, plot, force=force)
    loaded = load(checkpoint, device)
    with file_progress() as progress:
        workspace = Workspace(data_dir, progress, print_note, verify)
        dataset = workspace.own_dataset(loaded.checkpoint.metadata)
    gradients = own_gradients(loaded.checkpoint, dataset)
    if not gradients.as_in_run:
        print_note(
            _(
                "The checkpoint does not record its training settings (minigpt 0.1.0 wrote "
                "it); using the default batch size and seed."
            )
        )
    if plot:
        from minigpt_cli.plots.gradients import draw_gradients

        save_plot(draw_gradients(gradients, loaded.name), plot)
    output.show(_json(gradients), [_table(gradients), Text(_verdict(gradients))])


def _json(gradients: "Gradients") -> dict[str, Any]:
    """JSON has no NaN or infinity: these become null, and their state is `exploding`."""
    parameters = [
        {**asdict(one), "gradient_norm": _finite(one.gradient_norm),
         "weight_norm": _finite(one.weight_norm), "ratio": _finite(one.ratio), "state": one.state}
        for one in gradients.parameters
    ]  # fmt: skip
    return {
        **asdict(gradients),
        "loss": _finite(gradients.loss),
        "norm": _finite(gradients.norm),
        "parameters": parameters,
    }


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def _table(gradients: "Gradients") -> Table:
    table = grid(
        _("parameter"), _("shape"), _("gradient"), _("weights"), _("ratio"), "", text_columns=2,
        title=Text(
            _(
                "The batch of step {step}: {windows} windows, {tokens} tokens, loss {loss:.4f}"
            ).format(
                step=count(gradients.step), windows=gradients.windows,
                tokens=count(gradients.tokens), loss=gradients.loss,
            )
        ),
    )  # fmt: skip
    for one in gradients.parameters:
        shown, color = MARKS[one.state]
        table.add_row(
            one.name.removesuffix(".weight"), "x".join(map(str, one.shape)),
            number(one.gradient_norm, ".3g"), number(one.weight_norm, ".3g"),
            number(one.ratio, ".3g"), Text(_(shown), color),
        )  # fmt: skip
    return table


def _verdict(gradients: "Gradients") -> str:
    """Says what is wrong, or that nothing is."""
    states = (state for state in MARKS if state != "fine")
    problems = [
        f"{_names([one for one in gradients.parameters if one.state == state])}: {_(state)}"
        for state in states
        if any(one.state == state for one in gradients.parameters)
    ]
    if not problems:
        problems = [
            _("none dead or exploding among {number} parameters").format(
                number=len(gradients.parameters)
            )
        ]
    return _("Global gradient norm {norm:.3g}; {problems}.").format(
        norm=gradients.norm, problems="; ".join(problems)
    )


def _names(found: "list[ParameterGradient]") -> str:
    names = ", ".join(one.name.removesuffix(".weight") for one in found[:3])
    return names + (_(" and {number} more").format(number=len(found) - 3) if len(found) > 3 else "")
