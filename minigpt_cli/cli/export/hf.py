"""`minigpt export --to hf`: a folder for Hugging Face's libraries."""

from minigpt_cli.cli.console import print_note
from minigpt_cli.cli.export.request import Request
from minigpt_cli.language import _


def export_hf(request: Request) -> None:
    """Writes the folder and says how to open it.

    Raises:
        CheckpointError: the model is missing, damaged, or not a minigpt checkpoint.
        InteropError: the folder exists, or cannot be written.
        typer.BadParameter: the options do not fit.
    """
    from minigpt_cli.interop.hf_export import check_folder
    from minigpt_cli.interop.hf_export import export_hf as write

    request.check_dtype("fp32", "bf16")
    check_folder(request.target, request.force)  # before the work
    checkpoint = request.load().checkpoint
    dtype = request.dtype if request.dtype in ("fp32", "bf16") else "fp32"
    write(checkpoint, request.target, dtype, request.force)
    print_note(
        _(
            "Wrote {target}; open it with "
            "transformers.AutoModelForCausalLM.from_pretrained({path!r})"
        ).format(target=request.target, path=str(request.target))
    )
