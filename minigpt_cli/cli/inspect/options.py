"""The options of `minigpt inspect`, and all that a user asked of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from minigpt_cli.cli.options import OUTPUT

VIEW, DETAIL = "What to look at", "Details"

Files = Annotated[
    list[Path] | None,
    typer.Argument(help="A safetensors file, or runs' folders. Default: the newest checkpoint."),
]
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
Surprisal = Annotated[
    str | None,
    typer.Option(
        "--surprisal",
        metavar="FILE",
        help="Which passages of a text it finds hard.",
        rich_help_panel=VIEW,
    ),
]
Memorized = Annotated[
    bool,
    typer.Option(
        "--memorized",
        help="What it writes that stands verbatim in its training text.",
        rich_help_panel=VIEW,
    ),
]
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
Samples = Annotated[
    int | None,
    typer.Option(
        "--samples", help="--memorized: texts to write.", show_default="10", rich_help_panel=DETAIL
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", help="--memorized: of the texts.", show_default="0", rich_help_panel=DETAIL
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", help="--surprisal, --memorized: where to compute.", show_default="auto",
        rich_help_panel=DETAIL,
    ),
]  # fmt: skip
Batch = Annotated[
    int | None,
    typer.Option(
        "--batch", metavar="STEP", help="The text that a run's step learned from.",
        rich_help_panel=VIEW,
    ),
]  # fmt: skip
Tensors = Annotated[
    bool,
    typer.Option(
        "--tensors", help="List every tensor, not only the components.", rich_help_panel=DETAIL
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option("--plot", help="Draw it: a .png or .svg file.", rich_help_panel=OUTPUT),
]
Html = Annotated[
    Path | None,
    typer.Option("--html", help="Write it as a page for a browser.", rich_help_panel=OUTPUT),
]
Force = Annotated[
    bool, typer.Option("--force", help="Overwrite what exists.", rich_help_panel=OUTPUT)
]


@dataclass(frozen=True)
class Asked:
    """What to look at, and the details that each view has; None is not given."""

    files: list[Path] | None
    attention: str | None
    embeddings: bool
    shapes: str | None
    gradients: bool
    next: str | None
    surprisal: str | None
    memorized: bool
    batch: int | None
    report: bool
    layer: int | None
    head: int | None
    top_k: int | None
    top_p: float | None
    samples: int | None
    seed: int | None
    encoding: str | None
    device: str | None
    tensors: bool
    data_dir: Path

    @property
    def view(self) -> str | None:
        """The option that says what to look at, without its dashes.

        Raises:
            typer.BadParameter: there are two, or a detail that its view does not have.
        """
        views = [name for name in _VIEWS if _given(getattr(self, name))]
        if len(views) > 1:
            two = " and ".join(f"--{name}" for name in views)
            raise typer.BadParameter(f"{two}: one view at a time; leave one out")
        view = views[0] if views else None
        for detail, owners in _DETAILS.items():
            if _given(getattr(self, detail)) and view not in owners:
                option, homes = detail.replace("_", "-"), " or ".join(f"--{o}" for o in owners)
                raise typer.BadParameter(
                    f"--{option} belongs to {homes}; add that, or leave it out"
                )
        if self.tensors and view:
            raise typer.BadParameter(f"--tensors lists a file's tensors; leave it or --{view} out")
        if view == "shapes" and not self.files and self.shapes and Path(self.shapes).exists():
            raise typer.BadParameter(
                f"--shapes takes a text; to look at {self.shapes}, name it before --shapes"
            )
        return view


def _given(value: object) -> bool:
    return value is not None and value is not False


_VIEWS = (
    "attention", "embeddings", "shapes", "gradients", "next", "surprisal", "memorized", "batch",
    "report",
)  # fmt: skip
_DETAILS = {
    "layer": ("attention",), "head": ("attention",), "top_k": ("next",), "top_p": ("next",),
    "samples": ("memorized",), "seed": ("memorized",), "encoding": ("surprisal",),
    "device": ("surprisal", "memorized"),
}  # fmt: skip
