"""The choices that presets and options share; imports nothing, so that `--help` stays fast."""

from typing import Literal

TokenizerKind = Literal["char", "word", "byte", "bpe", "pretrained"]
"""`pretrained` is a tokenizer that came with a model trained elsewhere."""
Precision = Literal["auto", "fp32", "bf16"]
LoraTarget = Literal["q", "k", "v", "proj", "gate", "up", "down"]
"""Matrices of a block that an adapter can update, by their names in minigpt."""
TrackerName = Literal["tensorboard", "wandb"]
Split = Literal["train", "val", "all"]
Newlines = Literal["lf", "keep"]
Documents = Literal["auto", "files", "none"]
"""What is kept apart by an end-of-text token: records, also whole files, or nothing."""
Quantization = Literal["int8"]
