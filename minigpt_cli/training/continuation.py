"""The settings of a run that begins from a model, or a tokenizer, that exists already."""

from pathlib import Path

from minigpt_cli.config.loading import Overrides, resolve
from minigpt_cli.config.schema import ClassicConfig, RunConfig
from minigpt_cli.data.vocabulary import with_tokenizer
from minigpt_cli.errors import ConfigError
from minigpt_cli.language import _
from minigpt_cli.runs.checkpoint import Checkpoint
from minigpt_cli.tokenizer.files import read_tokenizer

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
            _("optimizer.name = {name}: adapters are trained with AdamW").format(
                name=config.optimizer.name
            ),
            settings=("optimizer.name=adamw", "optimizer.learning_rate=0.001"),
        )
    own = {name: value for name, value in overrides.items() if name.startswith("model.")}
    chosen = {"data.tokenizer", "data.tokenizer_file", "data.vocab_size"}
    for name in [*own, *(overrides.keys() & chosen)]:
        if name not in CHANGEABLE:
            raise ConfigError(
                _(
                    "{name}: comes with the model that the run begins from, and cannot be changed; "
                    "only {changeable} can"
                ).format(name=name, changeable=_(", ").join(CHANGEABLE))
            )
    before = initial.model.config
    model = resolve({"model": before.model_dump()}, own, _("the model")).model
    if isinstance(model, ClassicConfig) and model.block_size > before.block_size:
        raise ConfigError(
            _(
                "model.block_size = {block_size}: the model learned {positions} positions; use at "
                "most as many"
            ).format(block_size=model.block_size, positions=before.block_size)
        )
    data = with_tokenizer(config.data, initial.tokenizer)
    data = data.model_copy(update={"tokenizer_file": None})
    return config.model_copy(update={"model": model, "data": data})


def with_tokenizer_file(config: RunConfig, overrides: Overrides) -> RunConfig:
    """The configuration with the kind and the digest of the tokenizer that it names a file of.

    Args:
        config: with a `data.tokenizer_file`.
        overrides: as the user gave them.

    Raises:
        ConfigError: an override would make it another tokenizer, or the file has changed.
        TokenizerError: the file cannot be read.
    """
    file = config.data.tokenizer_file
    assert file is not None
    for name in sorted(overrides.keys() & {"data.tokenizer", "data.vocab_size"}):
        problem = _("{name}: comes with the tokenizer in {file}; leave one out")
        raise ConfigError(problem.format(name=name, file=file))
    data = with_tokenizer(config.data, read_tokenizer(Path(file)))
    if config.data.tokenizer_sha256 not in (None, data.tokenizer_sha256):
        raise ConfigError(
            _(
                "{file}: not the tokenizer that this configuration was made with; restore it, or "
                "remove data.tokenizer_sha256"
            ).format(file=file)
        )
    return config.model_copy(update={"data": data})
