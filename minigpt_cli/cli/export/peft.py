"""`minigpt export --to peft`: the adapters alone, for Hugging Face's `peft`."""

from minigpt_cli.cli.console import print_note
from minigpt_cli.cli.export.request import Request
from minigpt_cli.language import _


def export_peft(request: Request) -> None:
    """Writes the folder and says how to open it.

    Raises:
        CheckpointError: the model is missing, damaged, or not a minigpt checkpoint.
        InteropError: it has no adapters, or the folder exists, or cannot be written.
        typer.BadParameter: the options do not fit.
    """
    from minigpt_cli.interop.hf_export import check_folder
    from minigpt_cli.interop.peft_export import FILES
    from minigpt_cli.interop.peft_export import export_peft as write

    request.check_dtype("fp32")
    check_folder(request.target, request.force, FILES)  # before the work
    loaded = request.load()
    write(loaded.checkpoint, request.target, request.force)
    print_note(
        _(
            "Wrote {target}; open it with peft.PeftModel.from_pretrained(model, {path!r}), where "
            "model is the one that training began from, as exported with --to hf"
        ).format(target=request.target, path=str(request.target))
    )
