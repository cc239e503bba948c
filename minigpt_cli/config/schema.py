"""Every setting of a run, its default and its limits: four tables in one frozen `RunConfig`."""

import json
import math
from bisect import bisect
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    field_validator,
    model_validator,
)

from minigpt_cli.config.choices import Precision, TokenizerKind

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Count = Annotated[int, Field(gt=0, lt=2**31)]
# What is multiplied with weights must stay a number of theirs: fp32 ends at 3e38.
Rate = Annotated[float, Field(gt=0.0, le=1e6)]
Scale = Annotated[float, Field(ge=0.0, le=1e6)]


class _Table(BaseModel):
    # Strict: "3", 3.0 and true are not the number 3. A list from TOML may become a tuple.
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )


class _ModelBase(_Table):
    """What both families have."""

    n_layer: Count = 6
    """Transformer blocks."""
    n_head: Count = 6
    """Attention heads per block; divides `n_embd`."""
    n_embd: Count = 384
    """Width of the residual stream."""
    block_size: Count = 256
    """Context: how many tokens the model sees at once."""
    dropout: Fraction = 0.0
    """Share of activations dropped in training."""
    tie_embeddings: bool = False
    """Whether the output head reuses the token embedding."""

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.n_embd % self.n_head:
            below = [h for h in range(1, math.isqrt(self.n_embd) + 1) if self.n_embd % h == 0]
            fits = sorted({*below, *(self.n_embd // h for h in below)})
            place = bisect(fits, self.n_head)
            tries = " or ".join(str(h) for h in fits[place - 1 : place + 1])
            raise ValueError(
                f"model.n_head = {self.n_head} does not divide model.n_embd = {self.n_embd}; "
                f"try {tries}"
            )
        return self


class ClassicConfig(_ModelBase):
    """GPT-2's family: learned positions, LayerNorm, ReLU or GELU."""

    family: Literal["classic"] = "classic"
    activation: Literal["relu", "gelu"] = "gelu"
    """Between the two layers of the feed-forward part; `gelu` is the exact one (Hendrycks & Gimpel
    2016), which is faster on a CPU than GPT-2's approximation by a tanh."""
    bias: bool = True
    """Biases in linear layers and LayerNorms."""
    qkv_bias: bool = True
    """Biases of query, key and value (needs `bias`)."""

    feed_forward_matrices: ClassVar[int] = 2
    """Up and down, `n_embd` × `hidden` each."""

    @property
    def kv_heads(self) -> int:
        return self.n_head

    @property
    def hidden(self) -> int:
        return 4 * self.n_embd


class ModernConfig(_ModelBase):
    """Qwen3's family: RoPE, RMSNorm, per-head QK-norm, SwiGLU, no biases."""

    family: Literal["modern"] = "modern"
    n_kv_head: Count | None = None
    """Key/value heads (grouped-query attention); unset means as many as `n_head`."""
    n_hidden: Count | None = None
    """Width of the feed-forward part; unset means 8/3 `n_embd`, rounded up to 64."""
    rope_theta: PositiveFloat = 10_000.0
    """Base of the rotary frequencies."""

    feed_forward_matrices: ClassVar[int] = 3
    """Gate, up and down, `n_embd` × `hidden` each."""

    @property
    def kv_heads(self) -> int:
        return self.n_kv_head or self.n_head

    @property
    def hidden(self) -> int:
        return self.n_hidden or -(-8 * self.n_embd // (3 * 64)) * 64

    @model_validator(mode="after")
    def _rotary_and_groups(self) -> Self:
        if self.n_head % self.kv_heads:
            raise ValueError(
                f"model.n_kv_head = {self.kv_heads} does not divide model.n_head = {self.n_head}; "
                "leave it out, or take a divisor"
            )
        if self.head_dim % 2:
            raise ValueError(
                f"model.n_embd / model.n_head = {self.head_dim} is odd; rotary positions need an "
                "even head size"
            )
        return self


ModelConfig = Annotated[ClassicConfig | ModernConfig, Field(discriminator="family")]


class DataConfig(_Table):
    """Which text, cut how."""

    corpus: Annotated[tuple[str, ...], Field(strict=False)] = ("shakespeare",)
    """Names of known corpora, files or folders, read in this order."""
    encoding: str = "utf-8"
    """Of the files; `utf-8` accepts a byte order mark."""
    tokenizer: TokenizerKind = "char"
    vocab_size: Count | None = None
    """Largest vocabulary: needed for `bpe` (default 1,024), a cap for `word`."""
    val_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of the characters, from the end, kept for validation."""
    sampling: Literal["random", "epochs"] = "epochs"
    """`random`: windows anywhere, as in the guide; `epochs`: every window once, then again."""

    @field_validator("corpus", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("corpus")
    @classmethod
    def _at_least_one(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("names no text; give a corpus, a file or a folder")
        for name in value:
            if name.encode("utf-8", "replace").decode() != name:  # bytes that are no UTF-8
                raise ValueError(f"{name!a} cannot be written down; rename the file")
        return value


class OptimizerConfig(_Table):
    """How weights follow gradients."""

    name: Literal["adamw", "muon"] = "muon"
    """`muon` takes the blocks' matrices and leaves the rest to AdamW."""
    learning_rate: Rate
    """Peak rate of the optimizer named above; unset means 0.02 for Muon, 0.001 for AdamW."""
    adamw_learning_rate: Rate = 0.01
    """Peak rate of AdamW for what Muon leaves to it: embeddings, head, norms."""
    schedule: Literal["constant", "cosine", "wsd"] = "wsd"
    """After the warm-up: stay, fall as a cosine, or stay and then fall linearly."""
    warmup_iters: Annotated[int, Field(ge=0)] = 20
    """Steps in which the rate rises linearly from 0."""
    decay_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.7
    """`wsd`: the last part of the run in which the rate falls."""
    min_lr: NonNegativeFloat = 0.0
    """`learning_rate` at the end of the fall; `adamw_learning_rate` falls in proportion."""
    weight_decay: Scale = 0.1
    """Decoupled; on matrices only."""
    betas: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = (0.9, 0.99)
    """AdamW's."""
    momentum: Fraction = 0.95
    """Muon's."""
    grad_clip: Scale = 0.0
    """Largest norm of all gradients together; 0 leaves them."""

    @model_validator(mode="before")
    @classmethod
    def _usual_learning_rate(cls, values: Any) -> Any:
        if isinstance(values, dict) and "learning_rate" not in values:
            usual = 0.001 if values.get("name") == "adamw" else 0.02
            return {**values, "learning_rate": usual}
        return values

    @model_validator(mode="after")
    def _min_below_peak(self) -> Self:
        if self.min_lr > self.learning_rate:
            raise ValueError(
                f"optimizer.min_lr = {self.min_lr} is above optimizer.learning_rate = "
                f"{self.learning_rate}"
            )
        return self


class TrainConfig(_Table):
    """How long, how much at a time, and how it is watched."""

    max_iters: Count = 5000
    """Optimizer steps."""
    batch_size: Count = 16
    """Windows of `block_size` tokens in one forward pass."""
    grad_accum_steps: Count = 1
    """Forward passes per optimizer step."""
    eval_interval: Count = 250
    """Steps between evaluations."""
    eval_tokens: Count = 131_072
    """Validation tokens an evaluation reads: all of them, or so many spread evenly."""
    save_every_seconds: NonNegativeFloat = 60.0
    """Between saves of the state for `--resume`; evaluations save it too. 0 leaves it to them."""
    log_interval: Count = 10
    """Steps between rows of `metrics.jsonl`."""
    sample_tokens: Annotated[int, Field(ge=0)] = 160
    """Tokens the model writes at each evaluation; 0 for none."""
    precision: Precision = "auto"
    """Of the forward and backward pass; `auto` takes bf16 where the machine is faster at it."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the blocks with `torch.compile`; `auto` does on an NVIDIA GPU, in a long run."""
    on_nonfinite: Literal["rewind", "stop"] = "rewind"
    """When a loss or gradient is no number: go back to the last save and leave the batch out, at
    most three times; or stop."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """Of the processor; 0 takes what PyTorch takes. The last digits depend on it."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1` or `mps`."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of the weights, the batches and the dropout."""


class RunConfig(_Table):
    """Everything a run depends on."""

    model: ModelConfig = ModernConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig.model_validate({})
    train: TrainConfig = TrainConfig()

    def to_toml(self) -> str:
        """The whole configuration as a preset that would make the same run again."""
        lines = []
        for section, table in self.model_dump(mode="json").items():
            lines.append(f"[{section}]")
            lines += [
                f"{key} = {toml_value(value)}" for key, value in table.items() if value is not None
            ]
            lines.append("")
        return "\n".join(lines)


def differences(*configs: RunConfig) -> dict[str, tuple[object, ...]]:
    """Every setting that is not the same in all, by its full name, with its value in each.

    A setting that a model's family does not have is None there.
    """
    tables = [config.model_dump() for config in configs]
    found = {}
    for section in RunConfig.model_fields:
        for key in sorted({key for table in tables for key in table[section]}):
            values = tuple(table[section].get(key) for table in tables)
            if any(value != values[0] for value in values):
                found[f"{section}.{key}"] = values
    return found


def toml_value(value: object) -> str:
    """A string, number, boolean or flat list as TOML writes it."""
    # JSON does too, but for one control character that it leaves as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
