"""The choices that presets and options share; imports nothing, so that `--help` stays fast."""

from typing import Literal

TokenizerKind = Literal["char", "word", "byte", "bpe", "pretrained"]
"""`pretrained` is a tokenizer that came with a model trained elsewhere."""
Precision = Literal["auto", "fp32", "bf16"]
TrackerName = Literal["tensorboard", "wandb"]
Split = Literal["train", "val", "all"]
Newlines = Literal["lf", "keep"]
Quantization = Literal["int8"]
