"""Every setting of a run with its default and limits: its tables in one frozen `RunConfig`."""

import json
import math
from bisect import bisect
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    field_validator,
    model_validator,
)

from minigpt_cli.config.choices import Documents, LoraTarget, Newlines, Precision, TokenizerKind
from minigpt_cli.language import _

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Count = Annotated[int, Field(gt=0, lt=2**31)]
# Bounded, so that a product with a weight stays finite in fp32, which ends at 3e38.
Rate = Annotated[float, Field(gt=0.0, le=1e6)]
Epsilon = Annotated[float, Field(gt=0.0, lt=1.0)]
Weight = Annotated[float, Field(gt=0.0, le=1e6)]
Scale = Annotated[float, Field(ge=0.0, le=1e6)]


class _Table(BaseModel):
    # Strict: "3", 3.0 and true are not accepted as the integer 3. Tuples also accept TOML's lists.
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )


class _ModelBase(_Table):
    """The settings of both families."""

    n_layer: Count = 6
    """Number of transformer blocks."""
    n_head: Count = 6
    """Number of attention heads per block; must divide `n_embd`."""
    n_embd: Count = 384
    """Width of the residual stream."""
    block_size: Count = 256
    """Context length in tokens."""
    dropout: Fraction = 0.0
    """Fraction of activations dropped during training."""
    tie_embeddings: bool = False
    """Weight tying: the output head shares the token embedding's weights."""

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.n_embd % self.n_head:
            below = [h for h in range(1, math.isqrt(self.n_embd) + 1) if self.n_embd % h == 0]
            fits = sorted({*below, *(self.n_embd // h for h in below)})
            place = bisect(fits, self.n_head)
            tries = _(" or ").join(str(h) for h in fits[place - 1 : place + 1])
            raise ValueError(
                _(
                    "model.n_head = {n_head} does not divide model.n_embd = {n_embd}; try {tries}"
                ).format(n_head=self.n_head, n_embd=self.n_embd, tries=tries)
            )
        return self


class ClassicConfig(_ModelBase):
    """GPT-2's family: learned positions, LayerNorm, ReLU or GELU."""

    family: Literal["classic"] = "classic"
    activation: Literal["relu", "gelu", "gelu_tanh"] = "gelu"
    """Activation function of the feed-forward layers; `gelu` is the exact one, `gelu_tanh` GPT-2's
    approximation."""
    bias: bool = True
    """Bias terms in linear layers and LayerNorms."""
    qkv_bias: bool = True
    """Bias terms of the query, key and value projections; ignored unless `bias` is true."""
    norm_eps: Epsilon = 1e-5
    """Added to the variance in LayerNorms."""

    feed_forward_matrices: ClassVar[int] = 2
    """Up and down, `n_embd` × `hidden` each."""

    @property
    def kv_heads(self) -> int:
        """Number of key/value heads: one per attention head."""
        return self.n_head

    @property
    def hidden(self) -> int:
        """Width of the feed-forward layers."""
        return 4 * self.n_embd


class ModernConfig(_ModelBase):
    """Qwen3's family: RoPE, RMSNorm, per-head QK-norm, SwiGLU, no biases."""

    family: Literal["modern"] = "modern"
    n_kv_head: Count | None = None
    """Number of key/value heads (grouped-query attention); defaults to `n_head`."""
    n_hidden: Count | None = None
    """Width of the feed-forward layers; defaults to 8/3 `n_embd`, as a multiple of 64."""
    rope_theta: PositiveFloat = 10_000.0
    """Base of the rotary position frequencies."""
    head_size: Count | None = None
    """Width of one attention head; defaults to `n_embd` / `n_head`."""
    qk_norm: bool = True
    """RMSNorm of queries and keys, per head; Llama and Qwen2 have none."""
    qkv_bias: bool = False
    """Bias terms of the query, key and value projections, as in Qwen2."""
    norm_eps: Epsilon = 1e-6
    """Added to the mean square in RMSNorms."""

    feed_forward_matrices: ClassVar[int] = 3
    """Gate, up and down, `n_embd` × `hidden` each."""

    @property
    def head_dim(self) -> int:
        """Width of one attention head, with the default applied."""
        return self.head_size or super().head_dim

    @property
    def kv_heads(self) -> int:
        """Number of key/value heads, with the default applied."""
        return self.n_kv_head or self.n_head

    @property
    def hidden(self) -> int:
        """Width of the feed-forward layers, with the default applied."""
        return self.n_hidden or -(-8 * self.n_embd // (3 * 64)) * 64

    @model_validator(mode="after")
    def _rotary_and_groups(self) -> Self:
        if self.n_head % self.kv_heads:
            raise ValueError(
                _(
                    "model.n_kv_head = {kv_heads} does not divide model.n_head = {n_head}; "
                    "remove it, or use a divisor"
                ).format(kv_heads=self.kv_heads, n_head=self.n_head)
            )
        if self.head_dim % 2:
            raise ValueError(
                _(
                    "model.{name} = {head_dim} is odd; rotary positions need an even head dimension"
                ).format(
                    name="head_size" if self.head_size else "n_embd / model.n_head",
                    head_dim=self.head_dim,
                )
            )
        return self


ModelConfig = Annotated[ClassicConfig | ModernConfig, Field(discriminator="family")]


class DataConfig(_Table):
    """The training text and how it is tokenized."""

    corpus: Annotated[tuple[str, ...], Field(strict=False)] = ("shakespeare",)
    """Known corpora, files or folders, read in this order."""
    val_corpus: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """A validation text of its own; by default the end of the training text is kept for it."""
    weights: Annotated[tuple[Weight, ...], Field(strict=False, max_length=256)] = ()
    """Weight of each text in `corpus` in the training batches; without any, by their lengths."""
    encoding: str = "utf-8"
    """Text encoding of the files; `utf-8` accepts a byte order mark, `auto` detects each file's."""
    newlines: Newlines = "lf"
    """`lf` reads CRLF and CR line ends as LF; `keep` leaves them as they are."""
    include: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Patterns of files to read from folders, as `*.py`; by default plain text, else records."""
    format: Literal["auto", "text"] = "auto"
    """`auto` reads JSON lines, CSV, Parquet and Arrow as records; `text` any file as plain text."""
    text_field: Annotated[str, Field(min_length=1)] = "text"
    """Field or column of a record that has its text."""
    documents: Documents = "auto"
    """What an end-of-text token ends: each record (`auto`), each file too (`files`), or nothing."""
    tokenizer: TokenizerKind = "char"
    """Tokenizer kind: one token per character, word or byte, or byte-pair encoding."""
    tokenizer_file: str | None = None
    """Tokenizer from disk: a `tokenizer.json`, or a folder with it or with GPT-2's own files."""
    vocab_size: Count | None = None
    """Maximum vocabulary size, for `bpe` (default 1,024) and `word` (default unlimited)."""
    bpe_sample: Annotated[int, Field(ge=0, lt=2**60)] = 200_000_000
    """Bytes of a larger text that `bpe` learns from, spread evenly over it; 0 takes all of it."""
    tokenizer_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Digest of the tokenizer that came with the model or from a file; minigpt sets it."""
    val_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Fraction of the characters, taken from the end, used for validation."""
    sampling: Literal["random", "epochs"] = "epochs"
    """Window sampling: `epochs` visits each window once per epoch, `random` draws them anywhere."""

    @field_validator("corpus", "val_corpus", "include", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("corpus")
    @classmethod
    def _at_least_one(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError(_("names no text; give a corpus, a file or a folder"))
        return value

    @model_validator(mode="after")
    def _a_weight_each(self) -> Self:
        if self.weights and len(self.weights) != len(self.corpus):
            raise ValueError(
                _(
                    "data.weights has {weights} values and data.corpus names {texts} texts; give "
                    "each a weight, or none"
                ).format(weights=len(self.weights), texts=len(self.corpus))
            )
        return self

    @field_validator("corpus", "val_corpus")
    @classmethod
    def _valid_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name.encode("utf-8", "replace").decode() != name:  # not valid UTF-8
                raise ValueError(
                    _("{name!a} is not valid UTF-8; rename the file").format(name=name)
                )
        return value


class OptimizerConfig(_Table):
    """The optimizer and its learning-rate schedule."""

    name: Literal["adamw", "muon"] = "muon"
    """Optimizer: `muon` trains the weight matrices in the blocks, and AdamW everything else."""
    learning_rate: Rate
    """Peak learning rate of the named optimizer; defaults to 0.02 for Muon, 0.001 for AdamW."""
    adamw_learning_rate: Rate = 0.01
    """Peak learning rate of AdamW when `name` is `muon`: for embeddings, output head and norms."""
    embedding_learning_rate: Rate | None = None
    """Of these, the rate of the token embeddings; defaults to `adamw_learning_rate`."""
    head_learning_rate: Rate | None = None
    """And of the output head, unless it is tied; defaults to `adamw_learning_rate`."""
    schedule: Literal["constant", "cosine", "wsd"] = "wsd"
    """Learning rate after warmup: constant, cosine decay, or constant then linear decay (`wsd`)."""
    warmup_iters: Annotated[int, Field(ge=0)] = 20
    """Warmup steps, in which the learning rate rises linearly from 0."""
    decay_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.7
    """Fraction of the run, at its end, in which the learning rate decays (`wsd` only)."""
    min_lr: NonNegativeFloat = 0.0
    """Final value of `learning_rate`; `adamw_learning_rate` decays by the same factor."""
    weight_decay: Scale = 0.1
    """Decoupled weight decay, applied to matrices only."""
    betas: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = (0.9, 0.99)
    """Decay rates of AdamW's first and second moment estimates."""
    momentum: Fraction = 0.95
    """Momentum of Muon."""
    ema_decay: Fraction = 0.0
    """Share of the past in a moving average of the weights, which is what is evaluated, sampled
    from and saved as the model; 0 keeps none."""
    grad_clip: Scale = 0.0
    """Maximum global gradient norm; 0 turns clipping off."""

    @model_validator(mode="before")
    @classmethod
    def _default_learning_rate(cls, values: Any) -> Any:
        if isinstance(values, dict) and "learning_rate" not in values:
            default = 0.001 if values.get("name") == "adamw" else 0.02
            return {**values, "learning_rate": default}
        return values

    @model_validator(mode="after")
    def _min_below_peak(self) -> Self:
        if self.min_lr > self.learning_rate:
            raise ValueError(
                _(
                    "optimizer.min_lr = {min_lr} is above optimizer.learning_rate = {learning_rate}"
                ).format(min_lr=self.min_lr, learning_rate=self.learning_rate)
            )
        return self


class TrainConfig(_Table):
    """Run length, batch size, evaluation, and the machine."""

    max_iters: Count = 5000
    """Optimizer steps in the run."""
    batch_size: Count = 16
    """Sequences of `block_size` tokens per forward pass."""
    grad_accum_steps: Count = 1
    """Forward and backward passes per optimizer step."""
    eval_interval: Count | Literal["auto"] = "auto"
    """Steps between evaluations; `auto` makes at least six of them, the first by step 50."""
    eval_tokens: Count = 16_384
    """Validation tokens per evaluation, spread evenly; the last evaluation reads more or all."""
    patience: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Evaluations without a new best after which training ends early; 0 never does."""
    save_every_seconds: NonNegativeFloat = 60.0
    """Seconds between saves of the training state; 0 saves only at evaluations."""
    log_interval: Count = 10
    """Optimizer steps between rows in `metrics.jsonl`."""
    sample_tokens: Annotated[int, Field(ge=0)] = 160
    """Tokens generated as a sample at each evaluation; 0 turns samples off."""
    precision: Precision = "auto"
    """Numeric precision of the forward and backward pass; `auto` uses bf16 where it is faster."""
    activation_checkpointing: bool = False
    """Keep only the input of each block and compute it again in the backward pass: less memory,
    about a third more time."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compilation of the blocks by `torch.compile`; `auto` compiles long runs on an NVIDIA GPU."""
    on_nonfinite: Literal["rewind", "stop"] = "rewind"
    """Action when a loss or gradient is NaN or infinite: rewind past the batch, or stop."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """CPU threads of each process; 0 takes the fastest number in a short timing, which the run then
    keeps, or with several processes their share of the cores."""
    device: str = "auto"
    """Device to train on: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""
    freeze: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Weights that are not trained, as patterns of their names: `blocks.0.*`, `*embedding*`."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Random seed of the weights, the batches and dropout."""


class DistributedConfig(_Table):
    """How several processes train one model together; one process ignores it."""

    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """`ddp` gives every process a copy of the model, `fsdp` a part of it; `auto` takes `ddp` while
    a copy fits the memory of one device."""
    timeout_seconds: Annotated[float, Field(ge=1.0, le=86_400.0)] = 600.0
    """Seconds after which a process that does not answer counts as lost."""


class LoraConfig(_Table):
    """Low-rank adapters, trained in place of the model's own weights (Hu et al. 2021)."""

    rank: Count = 8
    """Rank of the update of each weight matrix."""
    alpha: Rate = 16.0
    """Scale of the updates: each is multiplied by `alpha` / `rank`."""
    targets: Annotated[tuple[LoraTarget, ...], Field(strict=False)] = get_args(LoraTarget)
    """Matrices that get an adapter: query, key, value, output projection, feed-forward."""


class RunConfig(_Table):
    """Everything that determines a run."""

    model: ModelConfig = ModernConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig.model_validate({})
    train: TrainConfig = TrainConfig()
    distributed: DistributedConfig = DistributedConfig()
    lora: LoraConfig | None = None

    def to_toml(self) -> str:
        """The whole configuration as TOML: a preset that reproduces the run."""
        lines = []
        for section, table in self.model_dump(mode="json").items():
            if table is None:
                continue
            lines.append(f"[{section}]")
            lines += [
                f"{key} = {toml_value(value)}" for key, value in table.items() if value is not None
            ]
            lines.append("")
        return "\n".join(lines)


def differences(*configs: RunConfig) -> dict[str, tuple[object, ...]]:
    """The settings that differ, by full name, with the value in each configuration.

    A setting that a model's family or a run without adapters does not have is None.
    """
    tables = [config.model_dump() for config in configs]
    found = {}
    for section in RunConfig.model_fields:
        parts = [table[section] or {} for table in tables]
        for key in sorted({key for part in parts for key in part}):
            values = tuple(part.get(key) for part in parts)
            if any(value != values[0] for value in values):
                found[f"{section}.{key}"] = values
    return found


def toml_value(value: object) -> str:
    """A string, number, boolean or flat list as TOML."""
    # JSON is the same here, except for one control character that it does not escape.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
