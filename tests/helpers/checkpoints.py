"""Checkpoints of random models, made without training."""

from minigpt_cli.config.schema import DataConfig, ModelConfig
from minigpt_cli.model.gpt import GPT
from minigpt_cli.runs.checkpoint import Checkpoint
from minigpt_cli.runs.checkpoint_header import CheckpointMetadata
from minigpt_cli.tokenizer.base import Tokenizer


def checkpoint_of(model: GPT, tokenizer: Tokenizer, step: int = 0) -> Checkpoint:
    config: ModelConfig = model.config
    facts = CheckpointMetadata(
        version="0", model=config, vocab_size=model.vocab_size, tokenizer=tokenizer.to_json(),
        data=DataConfig(), corpus="story", fingerprint="0", step=step, train_loss=None,
        val_loss=None, bits_per_byte=None,
    )  # fmt: skip
    return Checkpoint(model, tokenizer, facts)
