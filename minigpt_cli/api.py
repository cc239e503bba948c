"""The functions of the public API that have no other home: `load` and `evaluate`."""

from pathlib import Path

import numpy as np

from minigpt_cli import evaluation
from minigpt_cli.config.choices import Precision
from minigpt_cli.data.workspace import Workspace
from minigpt_cli.device import pick_device, pick_dtype
from minigpt_cli.evaluation import Evaluation
from minigpt_cli.interop.hf_folder import is_hf_folder
from minigpt_cli.runs.checkpoint import Checkpoint
from minigpt_cli.runs.folder import find_checkpoint
from minigpt_cli.training.opening import open_model


def load(
    source: Path | str | None = None, *, device: str = "auto", precision: Precision = "auto"
) -> Checkpoint:
    """Loads a model with its tokenizer.

    Args:
        source: a run folder, a checkpoint, a state (the last model of a run) or a folder of
            Hugging Face's transformers; by default the newest run under `runs/`.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: of the computation; `auto` is bf16 where the machine computes it faster.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
        InteropError: the folder holds a model that cannot be read.
        ConfigError: this machine does not have the device.
    """
    path = None if source is None else Path(source)
    if path is None or not is_hf_folder(path):
        path, _ = find_checkpoint(path)
    target = pick_device(device)
    checkpoint = open_model(path, target)
    checkpoint.model.compute_dtype = pick_dtype(precision, target)
    return checkpoint


def evaluate(
    checkpoint: Checkpoint, text: str | None = None, *, data_dir: Path | str = "data"
) -> Evaluation:
    """Scores a model on a text.

    Args:
        checkpoint: the model and its tokenizer.
        text: what to read; by default the validation split of the model's own text.
        data_dir: where downloaded and prepared texts are kept.

    Raises:
        CorpusError: the text has fewer than two tokens; or the model's own text is missing or has
            changed.
        TokenizerError: the text contains characters the tokenizer does not know.
    """
    if text is None:
        dataset = Workspace(Path(data_dir)).own_dataset(checkpoint.metadata)
        tokens = dataset.tokens("val")
    else:
        tokens = np.array(checkpoint.tokenizer.encode(text), dtype=np.uint32)
    return evaluation.evaluate(checkpoint.model, checkpoint.tokenizer, tokens)
