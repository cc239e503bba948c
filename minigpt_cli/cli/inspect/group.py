"""`minigpt inspect`: one subcommand per view, each in a module of its own beside this one.

A view's module has a function `show` with its options, and an `EXAMPLE`; `VIEWS` lists them all.
"""

import re
from copy import copy
from typing import Any

import typer

from minigpt_cli.cli.boundary import ErrorBoundary, UsageError
from minigpt_cli.cli.help import examples
from minigpt_cli.cli.inspect import (
    attention,
    batch,
    embeddings,
    gradients,
    memorized,
    next_token,
    overview,
    report,
    runs,
    shapes,
    surprisal,
)
from minigpt_cli.language import _

OVERVIEW = "overview"
VIEWS = {
    OVERVIEW: overview,
    "runs": runs,
    "report": report,
    "batch": batch,
    "shapes": shapes,
    "attention": attention,
    "embeddings": embeddings,
    "next": next_token,
    "gradients": gradients,
    "surprisal": surprisal,
    "memorized": memorized,
}
EXAMPLE = examples(
    "minigpt inspect",
    "minigpt inspect runs",
    "minigpt inspect runs/small",
    'minigpt inspect attention "ROMEO: But soft" --plot attention.png',
)


class ViewGroup(ErrorBoundary):
    """Hands whatever does not begin with the name of a view to the overview."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Adds the name of the overview where no view is named."""
        if args and args[0] in self.commands:
            pass
        elif wanted := [arg for arg in args if arg in ctx.help_option_names]:
            args = wanted[:1]
        elif args or not ctx.resilient_parsing:  # a shell completes the names of the views too
            self._check_moved(ctx, args)
            args = [OVERVIEW, *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Runs a view; an error of the overview, which nobody typed, offers the group's help."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            shown: Any = error
            if shown.ctx is not None and shown.ctx.info_name == OVERVIEW:
                shown.ctx = ctx
            raise

    def _check_moved(self, ctx: Any, args: list[str]) -> None:
        """Answers the options that views were once with their new spelling."""
        for option in (arg.partition("=")[0] for arg in args):
            name = option.removeprefix("--")
            if name != option and name in self.commands:
                command = self.commands[name]
                view = command.make_context(name, [], parent=ctx, resilient_parsing=True)
                usage = " ".join(
                    [name, *command.collect_usage_pieces(view)[1:]]
                )  # without [OPTIONS]
                ctx.fail(
                    _("{option} is now: minigpt inspect {usage}").format(
                        option=option, usage=re.sub("[{}]", "", usage)
                    )
                )

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Offers the views, and the options of the overview."""
        overview_too = self.commands[OVERVIEW].shell_complete(ctx, incomplete)
        return super().shell_complete(ctx, incomplete) + overview_too

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ARG002 - TyperGroup's signature
        return ["[OPTIONS] [FILES]... | VIEW [ARGS]..."]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Shows the views, and the options of the overview as if they were the group's own."""
        page = copy(self)
        page.params = self.commands[OVERVIEW].params
        super(ViewGroup, page).format_help(ctx, formatter)


app = typer.Typer(cls=ViewGroup)


@app.callback()
def inspect() -> None:
    """Look inside a checkpoint or a run: what it is, what it learned, how training went.

    Without a view: a run's training, several runs compared, or a safetensors file.
    A file that has the name of a view is reached as ./NAME.
    """


for _name, _view in VIEWS.items():
    app.command(_name, epilog=examples(_view.EXAMPLE), rich_help_panel=_("Views"))(_view.show)
