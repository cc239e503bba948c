"""The named choices that both presets and options offer; imports nothing, so `--help` is quick."""

from typing import Literal

TokenizerKind = Literal["char", "word", "byte", "bpe"]
Precision = Literal["auto", "fp32", "bf16"]
Split = Literal["train", "val", "all"]
Newlines = Literal["lf", "keep"]
Quantization = Literal["int8"]
