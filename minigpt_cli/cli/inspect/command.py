"""`minigpt inspect`: looks inside a checkpoint or a run; each view is a module of `views`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

from minigpt_cli.cli.inspect import options as of
from minigpt_cli.cli.inspect.options import Asked
from minigpt_cli.cli.options import DEFAULT_DATA_DIR, DataDir, Encoding, Json

if TYPE_CHECKING:
    from minigpt_cli.cli.inspect.loaded import Loaded
    from minigpt_cli.cli.inspect.output import Output

EXAMPLE = (
    "Examples:  minigpt inspect    minigpt inspect runs/small    "
    'minigpt inspect --attention "ROMEO: But soft" --plot attention.png'
)


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
    files: of.Files = None,
    attention: of.Attention = None,
    embeddings: of.Embeddings = False,
    shapes: of.Shapes = None,
    gradients: of.Gradients = False,
    next_text: of.Next = None,
    surprisal: of.Surprisal = None,
    memorized: of.Memorized = False,
    batch: of.Batch = None,
    report: of.Report = False,
    layer: of.Layer = None,
    head: of.Head = None,
    top_k: of.TopK = None,
    top_p: of.TopP = None,
    samples: of.Samples = None,
    seed: of.Seed = None,
    tensors: of.Tensors = False,
    encoding: Encoding = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    device: of.Device = None,
    plot: of.Plot = None,
    html: of.Html = None,
    force: of.Force = False,
    as_json: Json = False,
) -> None:
    """Look inside a checkpoint or a run: what it is, what it learned, how training went.

    A run's folder shows how training went; several compare. Any safetensors file will do; one from
    elsewhere gets the list of its tensors.
    """
    asked = Asked(
        files=files, attention=attention, embeddings=embeddings, shapes=shapes,
        gradients=gradients, next=next_text, surprisal=surprisal, memorized=memorized,
        batch=batch, report=report, layer=layer, head=head, top_k=top_k, top_p=top_p,
        samples=samples, seed=seed, encoding=encoding, device=device, tensors=tensors,
        data_dir=data_dir,
    )  # fmt: skip
    view = asked.view
    from minigpt_cli.cli.inspect.output import Output

    output = Output(as_json, plot, html, force)
    if view in ("surprisal", "memorized", "batch", "report"):
        _show_text(view, asked, output)
    elif view is not None:
        _show_model(view, asked, output)
    else:
        _show_what_it_is(asked, output)


def _show_model(view: str, asked: Asked, output: "Output") -> None:
    """The views of one model by itself."""
    loaded = _loaded(asked.files)
    if view == "attention":
        from minigpt_cli.cli.inspect.attention import show_attention

        show_attention(loaded, asked.attention or "", asked.layer, asked.head, output)
    elif view == "embeddings":
        from minigpt_cli.cli.inspect.embeddings import show_embeddings

        show_embeddings(loaded, output)
    elif view == "shapes":
        from minigpt_cli.cli.inspect.shapes import show_shapes

        show_shapes(loaded, asked.shapes or None, output)
    elif view == "gradients":
        from minigpt_cli.cli.inspect.gradients import show_gradients

        show_gradients(loaded, asked.data_dir, output)
    else:
        from minigpt_cli.cli.inspect.next_token import show_next

        show_next(loaded, asked.next or "", asked.top_k, asked.top_p, output)


def _show_text(view: str, asked: Asked, output: "Output") -> None:
    """The views of a model or a run beside a text."""
    device, data_dir = asked.device or "auto", asked.data_dir
    if view == "surprisal":
        from minigpt_cli.cli.inspect.surprisal import show_surprisal

        text = asked.surprisal or ""
        show_surprisal(_one(asked.files), text, asked.encoding, data_dir, device, output)
    elif view == "memorized":
        from minigpt_cli.cli.inspect.memorized import show_memorized

        samples = 10 if asked.samples is None else asked.samples
        show_memorized(_one(asked.files), samples, asked.seed or 0, data_dir, device, output)
    elif view == "batch":
        from minigpt_cli.cli.inspect.batch import show_batch

        show_batch(_run(asked.files), asked.batch or 0, data_dir, output)
    else:
        from minigpt_cli.cli.inspect.runs import show_report

        show_report(_run(asked.files), output)


def _show_what_it_is(asked: Asked, output: "Output") -> None:
    """Runs by their folders, a file by its header."""
    from minigpt_cli.runs.folder import is_folder

    files = asked.files
    if files and not asked.tensors and any(is_folder(path) for path in files):
        from minigpt_cli.cli.inspect.runs import show_runs

        show_runs(files, output)
    else:
        from minigpt_cli.cli.inspect.checkpoint import show_file

        show_file(_one(files), asked.tensors, output)


def _loaded(files: list[Path] | None) -> "Loaded":
    from minigpt_cli.cli.inspect.loaded import load

    return load(_one(files))


def _one(files: list[Path] | None) -> Path:
    """The checkpoint that a view of one model is for; says so when it was chosen for the user."""
    from minigpt_cli.cli.console import print_note
    from minigpt_cli.runs.folder import find_checkpoint

    if files and len(files) > 1:
        raise typer.BadParameter("this view is of one checkpoint; name one")
    path, chosen = find_checkpoint(files[0] if files else None)
    if chosen:
        print_note(f"Using {path}")
    return path


def _run(files: list[Path] | None) -> Path:
    """The folder of the run that a view is of; the newest, when none is named."""
    from minigpt_cli.cli.console import print_note
    from minigpt_cli.errors import CheckpointError
    from minigpt_cli.runs.folder import METRICS, is_folder, newest

    if files and len(files) > 1:
        raise typer.BadParameter("this view is of one run; name one")
    if files:
        if not is_folder(files[0]):
            raise CheckpointError(
                f"{files[0]}: not a run folder; pass one created by minigpt train"
            )
        return files[0]
    folder = newest(METRICS).path
    print_note(f"Using {folder}")
    return folder
