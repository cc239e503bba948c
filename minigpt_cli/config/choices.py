"""The choices that presets and options share; imports nothing, so that `--help` stays fast."""

from typing import Literal

TokenizerKind = Literal["char", "word", "byte", "bpe"]
Precision = Literal["auto", "fp32", "bf16"]
Split = Literal["train", "val", "all"]
Newlines = Literal["lf", "keep"]
Quantization = Literal["int8"]
