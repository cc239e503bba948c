"""`minigpt export --to gguf`: a file for llama.cpp and what is built on it."""

import shlex

import typer

from minigpt_cli.cli.console import print_note
from minigpt_cli.cli.export.request import Request
from minigpt_cli.language import _


def export_gguf(request: Request) -> None:
    """Writes the file, and says how to run it and what will differ.

    Raises:
        CheckpointError: the model is missing, damaged, or not a minigpt checkpoint.
        InteropError: GGUF cannot hold the model, or the file exists or cannot be written.
        typer.BadParameter: the options do not fit.
    """
    from minigpt_cli.interop.gguf_export import caveats, check_file
    from minigpt_cli.interop.gguf_export import export_gguf as write

    if request.target.suffix.lower() != ".gguf":
        raise typer.BadParameter(_("{target}: must end in .gguf").format(target=request.target))
    request.check_dtype("fp32", "bf16", "fp16", "q8_0")
    dtype = request.dtype or "fp32"
    assert dtype != "int8"
    check_file(request.target, request.force)  # before the work
    checkpoint = request.load().checkpoint
    write(checkpoint, request.target, dtype, request.force)
    size = request.target.stat().st_size / 1e6
    print_note(
        _(
            "Wrote {target} ({size:.1f} MB); run it with: llama-completion -no-cnv -m "
            "{path} -p TEXT"
        ).format(target=request.target, size=size, path=shlex.quote(str(request.target)))
    )
    for caveat in caveats(checkpoint):
        print_note(caveat)
