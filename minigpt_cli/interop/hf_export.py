"""A checkpoint as a folder that Hugging Face's `transformers` opens without our code.

The files are what `from_pretrained` looks for.
"""

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from minigpt_cli.config.schema import ClassicConfig
from minigpt_cli.errors import InteropError, reraise_as
from minigpt_cli.interop.hf_format import ExportDtype, hf_config, names_of
from minigpt_cli.interop.hf_tokenizer import END_CONFIG, TOKENIZER_CONFIG, to_hf
from minigpt_cli.interop.model_card import model_card
from minigpt_cli.interop.parts import weights, with_zero_biases
from minigpt_cli.io.atomic_folder import replacing_folder
from minigpt_cli.language import _
from minigpt_cli.runs.checkpoint import Checkpoint

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

WEIGHTS = "model.safetensors"
FILES = (
    "README.md", "config.json", "generation_config.json", WEIGHTS, "tokenizer.json",
    "tokenizer_config.json",
)  # fmt: skip
"""What an exported folder holds, and nothing else."""


def export_hf(
    checkpoint: Checkpoint, out: Path, dtype: ExportDtype = "fp32", force: bool = False
) -> None:
    """Writes the folder, whole or not at all.

    Args:
        checkpoint: a model and its tokenizer.
        out: the folder to make.
        dtype: of the weights.
        force: replace an earlier export at `out`.

    Raises:
        InteropError: `out` exists and may not be replaced, or the disk refuses.
    """
    check_folder(out, force)
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    texts = {
        "README.md": model_card(checkpoint, out.resolve().name),
        "config.json": as_json(hf_config(model.config, model.vocab_size, dtype)),
        "generation_config.json": as_json(
            {
                # Without a prompt, generation begins where ours does.
                "bos_token_id": tokenizer.start_ids[0],
                "eos_token_id": tokenizer.end_of_text,
                "pad_token_id": None,
            }
        ),
        "tokenizer.json": to_hf(tokenizer).to_str(),
        "tokenizer_config.json": as_json(
            {
                **TOKENIZER_CONFIG,
                "model_max_length": model.config.block_size,
                **({} if tokenizer.end_of_text is None else END_CONFIG),
            }
        ),
    }
    write_folder(out, texts, WEIGHTS, hf_tensors(checkpoint, _DTYPES[dtype]))


def write_folder(
    out: Path, texts: Mapping[str, str], weights_name: str, tensors: dict[str, Tensor]
) -> None:
    """Writes a folder of text files and one of tensors, whole or not at all.

    Raises:
        InteropError: the disk refuses.
    """
    hint, also = _("free some space or choose another path"), (SafetensorError,)
    with reraise_as(InteropError, out, "written", hint=hint, also=also):
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing_folder(out) as folder:
            for name, text in texts.items():
                (folder / name).write_text(text, encoding="utf-8", newline="\n")
            save_file(tensors, folder / weights_name, {"format": "pt"})
            with suppress(PermissionError):  # the library lets nobody else read its file
                (folder / weights_name).chmod((folder / name).stat().st_mode & 0o777)


def check_folder(out: Path, force: bool, files: Collection[str] = FILES) -> None:
    """Refuses to replace a folder, unless it is an earlier export and that is wanted.

    Args:
        out: the folder.
        force: whether replacing it is wanted.
        files: what an earlier export holds, and nothing else.

    Raises:
        InteropError: with what to do instead.
    """
    with reraise_as(InteropError, out, "read", hint=_("choose another path")):
        if not out.exists() and not out.is_symlink():
            return
        if not force:
            raise InteropError(
                _("{out}: already exists; replace it with --force, or choose another").format(
                    out=out
                )
            )
        if not out.is_dir() or out.is_symlink():
            raise InteropError(_("{out}: not a folder; choose another path").format(out=out))
        others = sorted(entry.name for entry in out.iterdir() if entry.name not in files)
    if others:
        raise InteropError(
            _(
                "{out}: --force would delete {name!r}, which is not part of an export; "
                "choose another path"
            ).format(out=out, name=others[0])
        )


def hf_tensors(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights by the names of `transformers`."""
    config = checkpoint.model.config
    names = names_of(config)
    tensors = weights(checkpoint.model, names)
    if isinstance(config, ClassicConfig):  # GPT-2 always has biases
        tensors = with_zero_biases(tensors)
    return {
        names.theirs(name): (tensor.T if names.is_transposed(name) else tensor)
        .to("cpu", dtype)
        .contiguous()
        for name, tensor in tensors.items()
    }


def as_json(value: dict[str, Any]) -> str:
    """A file's content."""
    return json.dumps(value, indent=2) + "\n"
