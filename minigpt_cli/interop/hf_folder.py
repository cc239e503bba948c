"""How models of other programs are recognized by their files, without PyTorch."""

from pathlib import Path

from minigpt_cli.errors import InteropError, reraise_as
from minigpt_cli.language import _
from minigpt_cli.runs.folder import CHECKPOINT

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def is_hf_folder(path: Path) -> bool:
    """Whether a path the user gave is a model of another program, and not a run.

    Raises:
        InteropError: it cannot be looked at.
    """
    with reraise_as(InteropError, path, "read"):
        return (path / CONFIG).is_file() and not (path / CHECKPOINT).exists()


def check_openable(path: Path) -> None:
    """Refuses what can be recognized as a model, but is not opened.

    Raises:
        InteropError: a pickle, or adapters without their model; with how to convert them.
    """
    with reraise_as(InteropError, path, "read"):
        if path.is_file() and path.suffix in PICKLES:
            raise is_pickle(path)
        if (path / ADAPTER_CONFIG).is_file() and not (path / CONFIG).is_file():
            raise InteropError(
                _(
                    "{path}: adapters without their model; merge them, and copy the model's "
                    'tokenizer.json: python -c "from peft import PeftModel; from transformers '
                    "import AutoModelForCausalLM as M; PeftModel.from_pretrained("
                    "M.from_pretrained('MODEL'), '{path}').merge_and_unload()"
                    ".save_pretrained('MERGED')\""
                ).format(path=path)
            )


def is_pickle(path: Path) -> InteropError:
    """The error that refuses a file which opening could make run anything."""
    return InteropError(
        _(
            "{folder}: a pickle, which can run any program when opened; convert it where "
            'you trust it: python -c "from transformers import AutoModelForCausalLM; '
            "AutoModelForCausalLM.from_pretrained('FOLDER').save_pretrained('FOLDER')\""
        ).format(folder=path)
    )
