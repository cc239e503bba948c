"""`minigpt inspect next`: what may follow a text."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from minigpt_cli.cli import options
from minigpt_cli.cli.console import in_unicode
from minigpt_cli.cli.inspect.output import Output, save_plot
from minigpt_cli.cli.inspect.tokens import note_unread
from minigpt_cli.cli.loading import CheckpointPath, load
from minigpt_cli.cli.options import TOP_K, TOP_P, Device, Force, Json, Plot, usage_errors
from minigpt_cli.cli.render import count, grid, raw
from minigpt_cli.cli.startup import import_torch
from minigpt_cli.language import _

if TYPE_CHECKING:
    from minigpt_cli.inspection.next_token import Choice, NextToken

EXAMPLE = 'minigpt inspect next "My lo"'
BAR = 12
"""Columns of the longest bar."""


def show(
    text: options.Text,
    top: Annotated[int, typer.Option(min=1, help="How many tokens to list.")] = 20,
    top_k: Annotated[int, TOP_K] = 10,
    top_p: Annotated[float, TOP_P] = 0.9,
    checkpoint: CheckpointPath = None,
    device: Device = "cpu",
    plot: Plot = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show the most likely next tokens at three temperatures.

    Pale bars are tokens that top-k or top-p would drop.
    """
    import_torch()
    from minigpt_cli.generation.sampling import Sampling
    from minigpt_cli.inspection.next_token import next_token
    from minigpt_cli.inspection.tokens import window

    with usage_errors():
        cuts = (Sampling(top_k=top_k), Sampling(top_p=top_p))
    output = Output(as_json, plot, force=force)
    loaded = load(checkpoint, device)
    read = window(loaded.checkpoint, text)
    note_unread(loaded.checkpoint, text, read.left_out, len(read.ids))
    likely = next_token(loaded.checkpoint, text, read.ids, top, cuts)
    if plot:
        from minigpt_cli.plots.next_token import draw_next

        save_plot(draw_next(likely, loaded.name), plot)
    output.show(asdict(likely), [_table(likely)])


def _table(likely: "NextToken") -> Table:
    """One row per token, one column per temperature; what a cut would drop is paler."""
    temperatures = [
        _("temperature {temperature:g}").format(temperature=choice.temperature)
        for choice in likely.choices
    ]
    table = grid(
        _("next token"), *temperatures, text_columns=1 + len(temperatures),
        title=raw(_title(likely.prompt)),
    )  # fmt: skip
    for i, token in enumerate(likely.tokens):
        table.add_row(raw(repr(token)), *(_bar(choice, i) for choice in likely.choices))
    table.add_section()
    for cuts in zip(*(choice.cuts for choice in likely.choices), strict=True):
        kept = (
            _("keeps {kept}, {probability:.1%}").format(
                kept=count(cut.kept), probability=cut.probability
            )
            for cut in cuts
        )
        table.add_row(cuts[0].setting, *kept)
    return table


def _bar(choice: "Choice", i: int) -> Text:
    """A bar and its percentage."""
    probability = choice.probabilities[i]
    kept = all(i < cut.kept for cut in choice.cuts)
    full, light = "█░" if in_unicode() else "#-"
    filled = round(BAR * probability)
    bar = ((full if kept else light) * filled, "green" if kept else "")
    return Text.assemble(bar, " " * (BAR - filled), f" {probability:6.1%}")


def _title(prompt: str) -> str:
    """Quotes the last characters of a prompt."""
    return _("After {prompt}").format(prompt=f"{'...' if len(prompt) > 40 else ''}{prompt[-40:]!r}")
