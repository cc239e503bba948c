"""`minigpt inspect`: looks inside a checkpoint or a run; each view is a module of `views`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from minigpt_cli.cli.options import DEFAULT_DATA_DIR, OUTPUT, DataDir, Json

if TYPE_CHECKING:
    from minigpt_cli.cli.views.loaded import Loaded

EXAMPLE = (
    "Examples:  minigpt inspect    minigpt inspect runs/small --json    "
    'minigpt inspect --attention "ROMEO: But soft" --plot attention.png'
)

VIEW, DETAIL = "What to look at", "Details"

Attention = Annotated[
    str | None,
    typer.Option(
        "--attention", metavar="TEXT", help="Where each head looks, in this text.",
        rich_help_panel=VIEW,
    ),
]  # fmt: skip
Embeddings = Annotated[
    bool,
    typer.Option(
        "--embeddings", help="Which tokens are alike to the model.", rich_help_panel=VIEW
    ),
]  # fmt: skip
Shapes = Annotated[
    str | None,
    typer.Option(
        "--shapes", metavar="[TEXT]", help="A text's way through the model, step by step; "
        "without a text a full window.", rich_help_panel=VIEW,
    ),
]  # fmt: skip
Gradients = Annotated[
    bool,
    typer.Option(
        "--gradients", help="What one batch of its text would change.", rich_help_panel=VIEW
    ),
]  # fmt: skip
Next = Annotated[
    str | None,
    typer.Option(
        "--next", metavar="TEXT", help="What may follow this text, at three temperatures.",
        rich_help_panel=VIEW,
    ),
]  # fmt: skip
Report = Annotated[
    bool,
    typer.Option(
        "--report", help="All about a run, as a page: RUN/report.html, or --html FILE.",
        rich_help_panel=VIEW,
    ),
]  # fmt: skip
Layer = Annotated[
    int | None,
    typer.Option("--layer", help="--attention: only this one, from 0.", rich_help_panel=DETAIL),
]
Head = Annotated[
    int | None,
    typer.Option(
        "--head", help="--attention: only this one of a layer, from 0.", rich_help_panel=DETAIL
    ),
]
TopK = Annotated[
    int | None,
    typer.Option(
        "--top-k", help="--next: where this would cut.", show_default="10", rich_help_panel=DETAIL
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(
        "--top-p", help="--next: where this would cut.", show_default="0.9", rich_help_panel=DETAIL
    ),
]


class InspectCommand(TyperCommand):
    """Lets `--shapes` stand without a text, which Typer has no way to say."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Gives `--shapes` an empty text where an option or nothing follows it."""
        whole = []
        for arg, following in zip(args, [*args, "-"][1:], strict=True):
            whole.append(arg)
            if arg == "--shapes" and following.startswith("-"):
                whole.append("")
        return super().parse_args(ctx, whole)


def inspect(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="A safetensors file or a run's folder. Default: the newest run."),
    ] = None,
    attention: Attention = None,
    embeddings: Embeddings = False,
    shapes: Shapes = None,
    gradients: Gradients = False,
    next_text: Next = None,
    report: Report = False,
    layer: Layer = None,
    head: Head = None,
    top_k: TopK = None,
    top_p: TopP = None,
    tensors: Annotated[
        bool,
        typer.Option(
            "--tensors",
            help="List every tensor, not only the components.",
            rich_help_panel=DETAIL,
        ),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw it: a .png or .svg file.", rich_help_panel=OUTPUT),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write it as a page for a browser.", rich_help_panel=OUTPUT),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Overwrite what exists.", rich_help_panel=OUTPUT),
    ] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: Json = False,
) -> None:
    """Look inside a checkpoint: what it is, what it learned from, where its parameters are.

    Any safetensors file will do; one from elsewhere gets the list of its tensors. A run's folder
    shows how training went; several compare.
    """
    _refuse_two_views(
        {
            "--attention": attention is not None,
            "--embeddings": embeddings,
            "--shapes": shapes is not None,
            "--gradients": gradients,
            "--next": next_text is not None,
            "--report": report,
        }
    )
    _refuse_lost("--attention", attention is None, {"--layer": layer, "--head": head})
    _refuse_lost("--next", next_text is None, {"--top-k": top_k, "--top-p": top_p})
    from minigpt_cli.cli.views.output import Output
    from minigpt_cli.run_folder import is_folder

    output = Output(as_json, plot, html, force)
    if attention is not None:
        from minigpt_cli.cli.views.attention import show_attention

        show_attention(_loaded(files), attention, layer, head, output)
    elif embeddings:
        from minigpt_cli.cli.views.embeddings import show_embeddings

        show_embeddings(_loaded(files), output)
    elif shapes is not None:
        from minigpt_cli.cli.views.shapes import show_shapes

        show_shapes(_loaded(files), shapes or None, output)
    elif gradients:
        from minigpt_cli.cli.views.gradients import show_gradients

        show_gradients(_loaded(files), data_dir, output)
    elif next_text is not None:
        from minigpt_cli.cli.views.next_token import show_next

        show_next(_loaded(files), next_text, top_k, top_p, output)
    elif report:
        from minigpt_cli.cli.views.runs import show_report

        show_report(_run(files), output)
    elif files and not tensors and any(is_folder(path) for path in files):
        from minigpt_cli.cli.views.runs import show_runs

        show_runs(files, output)
    else:
        from minigpt_cli.cli.views.checkpoint import show_file

        show_file(_one(files), tensors, output)


def _refuse_two_views(given: dict[str, bool]) -> None:
    """One view at a time.

    Raises:
        typer.BadParameter: two were asked for.
    """
    views = [option for option, wanted in given.items() if wanted]
    if len(views) > 1:
        raise typer.BadParameter(f"{' and '.join(views)}: one view at a time; leave one out")


def _refuse_lost(view: str, missing: bool, details: dict[str, object]) -> None:
    """A detail needs its view.

    Raises:
        typer.BadParameter: it was given without.
    """
    for option, value in details.items():
        if missing and value is not None:
            raise typer.BadParameter(f"{option} belongs to {view}; add that, or leave it out")


def _loaded(files: list[Path] | None) -> "Loaded":
    from minigpt_cli.cli.views.loaded import load

    return load(_one(files))


def _run(files: list[Path] | None) -> Path:
    """The folder of the one run that a report is of; the newest, when none is named."""
    from minigpt_cli.cli.console import print_note
    from minigpt_cli.run_folder import METRICS, newest

    if files and len(files) > 1:
        raise typer.BadParameter("--report is of one run; name one")
    if files:
        return files[0]
    folder = newest(METRICS).path
    print_note(f"Using {folder}")
    return folder


def _one(files: list[Path] | None) -> Path:
    """The checkpoint that a view of one model is for; says so when it was chosen for the user."""
    from minigpt_cli.cli.console import print_note
    from minigpt_cli.run_folder import find_checkpoint

    if files and len(files) > 1:
        raise typer.BadParameter("this view is of one checkpoint; name one")
    path, chosen = find_checkpoint(files[0] if files else None)
    if chosen:
        print_note(f"Using {path}")
    return path
