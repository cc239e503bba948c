"""A model from what holds one: a checkpoint, the state of a run, another program's folder."""

from pathlib import Path

import torch

from minigpt_cli.interop.hf_folder import check_openable, is_hf_folder
from minigpt_cli.runs.checkpoint import Checkpoint, load_checkpoint
from minigpt_cli.runs.folder import STATE


def open_model(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Loads a model with its tokenizer.

    Args:
        path: a checkpoint file, the state of a run, or a folder of Hugging Face's transformers.
        device: where its weights are put.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
        InteropError: a folder of transformers, a pickle or adapters, which cannot be opened.
    """
    if is_hf_folder(path):
        from minigpt_cli.interop.hf_import import read_hf

        return read_hf(path, device)
    check_openable(path)
    if path.name == STATE:
        from minigpt_cli.training.state import is_state, load_last

        if is_state(path):
            return load_last(path, device)
    return load_checkpoint(path, device)
