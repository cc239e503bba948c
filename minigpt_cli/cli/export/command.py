"""`minigpt export`: a model for other programs and other people."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from minigpt_cli.cli.export.request import ExportDtype, Request
from minigpt_cli.cli.help import examples
from minigpt_cli.cli.startup import import_torch
from minigpt_cli.language import _

EXAMPLE = examples(
    "minigpt export runs/small --to html letters.html",
    "minigpt export --to hf my-model",
    "minigpt export --to gguf my-model.gguf",
    "minigpt export runs/tuned --to peft my-adapter",
)
PAGE = "Page"

ExportFormat = Literal["html", "hf", "gguf", "peft"]

Paths = Annotated[
    list[Path],
    typer.Argument(
        metavar="[RUN|FILE] OUTPUT",
        help="A run folder or a checkpoint (default: the newest run), then where to write.",
        show_default=False,
    ),
]
To = Annotated[
    ExportFormat,
    typer.Option(
        "--to",
        help="html: one page that runs the model in a browser, without a network. "
        "hf: a folder for Hugging Face transformers. "
        "gguf: a file for llama.cpp, Ollama and LM Studio. "
        "peft: a folder with only the adapters that --lora-rank trained.",
        show_default=False,
    ),
]
Dtype = Annotated[
    ExportDtype | None,
    typer.Option(
        "--dtype", help="How to store the weights.", show_default="html: by size; else fp32"
    ),
]
Title = Annotated[
    str | None,
    typer.Option(
        "--title",
        help="Title of the page.",
        show_default="the corpus name",
        rich_help_panel=PAGE,
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        "-p",
        help="Text in the prompt box when the page opens.",
        show_default="empty",
        rich_help_panel=PAGE,
    ),
]
NoInspect = Annotated[
    bool,
    typer.Option(
        "--no-inspect",
        help="Only write: leave out probabilities, branches and attention.",
        rich_help_panel=PAGE,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace OUTPUT if it exists.")]


def export(
    paths: Paths,
    to: To,
    dtype: Dtype = None,
    title: Title = None,
    prompt: Prompt = None,
    no_inspect: NoInspect = False,
    force: Force = False,
) -> None:
    """Export a model: to a web page, to Hugging Face, to llama.cpp, or to peft."""
    if len(paths) > 2:
        raise typer.BadParameter(_("pass at most [RUN|FILE] and OUTPUT"))
    if to != "html":
        for name, given in (("title", title), ("prompt", prompt), ("no-inspect", no_inspect)):
            if given:
                raise typer.BadParameter(
                    _("--{name} is only valid with --to html").format(name=name)
                )
    source = paths[0] if len(paths) == 2 else None
    request = Request(source, paths[-1], dtype, force, title, prompt, inspect=not no_inspect)
    import_torch()
    if to == "html":
        from minigpt_cli.cli.export.html import export_html

        export_html(request)
    elif to == "hf":
        from minigpt_cli.cli.export.hf import export_hf

        export_hf(request)
    elif to == "gguf":
        from minigpt_cli.cli.export.gguf import export_gguf

        export_gguf(request)
    else:
        from minigpt_cli.cli.export.peft import export_peft

        export_peft(request)
