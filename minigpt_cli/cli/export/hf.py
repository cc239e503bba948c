"""`minigpt export --to hf`: a folder for Hugging Face's libraries."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minigpt_cli.interop.hf_export import ExportDtype


def export_hf(checkpoint_path: Path, out: Path, dtype: "ExportDtype", force: bool) -> None:
    """Writes the folder and says how to open it.

    Args:
        checkpoint_path: a checkpoint file.
        out: the folder to make.
        dtype: of the weights.
        force: replace an earlier export.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        InteropError: the folder cannot be written.
    """
    from minigpt_cli.cli.console import print_note
    from minigpt_cli.interop.hf_export import check_folder
    from minigpt_cli.interop.hf_export import export_hf as write
    from minigpt_cli.interop.model_card import settings_beside
    from minigpt_cli.runs.checkpoint import load_checkpoint

    check_folder(out, force)  # before the work
    checkpoint = load_checkpoint(checkpoint_path)
    write(checkpoint, out, dtype, force, settings_beside(checkpoint_path, checkpoint.metadata))
    print_note(
        f"Wrote {out}. Open it with: AutoModelForCausalLM.from_pretrained({str(out)!r}); "
        f"publish it with: hf upload NAME {shlex.quote(str(out))}"
    )
