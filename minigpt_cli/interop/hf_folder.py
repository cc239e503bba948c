"""How a folder of Hugging Face's `transformers` is recognized, without PyTorch."""

from pathlib import Path

from minigpt_cli.errors import InteropError, reraise_as
from minigpt_cli.runs.folder import CHECKPOINT

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"


def is_hf_folder(path: Path) -> bool:
    """Whether a path the user gave is a model of another program, and not a run.

    Raises:
        InteropError: it cannot be looked at.
    """
    with reraise_as(InteropError, path, "read"):
        return (path / CONFIG).is_file() and not (path / CHECKPOINT).exists()
