"""The settings of a run that begins from a model that exists already."""

import hashlib

from minigpt_cli.config.loading import Overrides, resolve
from minigpt_cli.config.schema import ClassicConfig, RunConfig
from minigpt_cli.errors import ConfigError
from minigpt_cli.runs.checkpoint import Checkpoint

CHANGEABLE = ("model.block_size", "model.dropout")
"""What a model may be given otherwise; its weights decide everything else."""


def continued(config: RunConfig, initial: Checkpoint, overrides: Overrides) -> RunConfig:
    """The configuration with the model and tokenizer that the run begins from.

    Args:
        config: everything else.
        initial: the model to begin from.
        overrides: as the user gave them; of the model's, only those in `CHANGEABLE`.

    Raises:
        ConfigError: an override would make it another model, or another tokenizer.
    """
    if config.lora is not None and config.optimizer.name != "adamw":
        raise ConfigError(
            f"optimizer.name = {config.optimizer.name}: adapters are trained with AdamW",
            settings=("optimizer.name=adamw", "optimizer.learning_rate=0.001"),
        )
    own = {name: value for name, value in overrides.items() if name.startswith("model.")}
    for name in [*own, *(overrides.keys() & {"data.tokenizer", "data.vocab_size"})]:
        if name not in CHANGEABLE:
            raise ConfigError(
                f"{name}: comes with the model that the run begins from, and cannot be changed; "
                f"only {' and '.join(CHANGEABLE)} can"
            )
    before = initial.model.config
    model = resolve({"model": before.model_dump()}, own, "the model").model
    if isinstance(model, ClassicConfig) and model.block_size > before.block_size:
        raise ConfigError(
            f"model.block_size = {model.block_size}: the model learned {before.block_size} "
            "positions; use at most as many"
        )
    sha256 = hashlib.sha256(initial.tokenizer.to_json().encode()).hexdigest()
    tokenizer = {
        "tokenizer": initial.tokenizer.kind, "vocab_size": None, "tokenizer_sha256": sha256,
    }  # fmt: skip
    data = config.data.model_copy(update=tokenizer)
    return config.model_copy(update={"model": model, "data": data})
