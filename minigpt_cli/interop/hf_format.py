"""What Hugging Face's `transformers` calls the settings and weights of our families.

`classic` is its GPT-2; `modern` is its Qwen3, or Llama or Qwen2 without QK-norm. Each key written
is there because some version of a reader would otherwise assume another value.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError

from minigpt_cli.config.loading import plain_problem
from minigpt_cli.config.schema import ClassicConfig, ModelConfig, ModernConfig
from minigpt_cli.errors import InteropError
from minigpt_cli.interop.parts import Names
from minigpt_cli.language import _

ExportDtype = Literal["fp32", "bf16"]
KNOWN = ("gpt2", "llama", "qwen2", "qwen3")
"""The families that can be opened, by `model_type`."""
LONGEST_WINDOW = 2048
"""Rotary models claim windows of up to a million tokens, which no memory here could hold."""

_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu_tanh": "gelu_new"}

GPT2 = Names(
    outer={
        "token_embedding": "transformer.wte", "position_embedding": "transformer.wpe",
        "norm": "transformer.ln_f", "head": "lm_head",
    },
    inner={
        "norm1": "ln_1", "attention.qkv": "attn.c_attn", "attention.proj": "attn.c_proj",
        "norm2": "ln_2", "up": "mlp.c_fc", "down": "mlp.c_proj",
    },
    block="transformer.h.{}",
    transposed=frozenset({"attention.qkv", "attention.proj", "up", "down"}),
)  # fmt: skip
MODERN = Names(
    outer={"token_embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"},
    inner={
        "norm1": "input_layernorm",
        "attention.q": "self_attn.q_proj", "attention.k": "self_attn.k_proj",
        "attention.v": "self_attn.v_proj", "attention.proj": "self_attn.o_proj",
        "attention.q_norm": "self_attn.q_norm", "attention.k_norm": "self_attn.k_norm",
        "norm2": "post_attention_layernorm",
        "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
    },
    block="model.layers.{}",
)  # fmt: skip


def names_of(config: ModelConfig) -> Names:
    """The names of this family's weights."""
    return GPT2 if isinstance(config, ClassicConfig) else MODERN


def hf_config(config: ModelConfig, vocab_size: int, dtype: ExportDtype) -> dict[str, Any]:
    """`config.json`: the family, its sizes, and every default that differs from ours."""
    name = {"fp32": "float32", "bf16": "bfloat16"}[dtype]
    shared = {
        "vocab_size": vocab_size,
        "tie_word_embeddings": config.tie_embeddings,
        # The defaults are GPT-2's, which a small vocabulary does not have.
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        "dtype": name,
        "torch_dtype": name,  # transformers 4
    }
    if isinstance(config, ClassicConfig):
        return _gpt2_config(config) | shared
    return _modern_config(config) | shared


def _gpt2_config(config: ClassicConfig) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "n_inner": 4 * config.n_embd,
        "n_positions": config.block_size,
        "n_ctx": config.block_size,
        "activation_function": _ACTIVATIONS[config.activation],
        "layer_norm_epsilon": config.norm_eps,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
    }


def _modern_config(config: ModernConfig) -> dict[str, Any]:
    kind, architecture = modern_kind(config)
    return {
        "architectures": [f"{architecture}ForCausalLM"],
        "model_type": kind,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.kv_heads,
        "hidden_size": config.n_embd,
        "intermediate_size": config.hidden,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.block_size,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "rms_norm_eps": config.norm_eps,
        # transformers 4 reads the first, 5 the second.
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        # Past the window the oldest tokens drop out, as in our cache.
        "use_sliding_window": True,
        "sliding_window": config.block_size,
        "max_window_layers": 0,
    }


def modern_kind(config: ModernConfig) -> tuple[str, str]:
    """The family that has these parts: its `model_type`, and the name of its classes.

    Raises:
        InteropError: there is none.
    """
    if config.qk_norm and config.qkv_bias:
        raise InteropError(
            _(
                "no family has both QK-norm and biases of queries, keys and values; train "
                "without one"
            ),
            settings=("model.qkv_bias=false",),
        )
    if config.qk_norm:
        return "qwen3", "Qwen3"
    return ("qwen2", "Qwen2") if config.qkv_bias else ("llama", "Llama")


def model_config(raw: Mapping[str, Any], block_size: int | None = None) -> ModelConfig:
    """The settings of a model, from its `config.json`.

    Args:
        raw: the file's content.
        block_size: the window to use, if not the model's own.

    Raises:
        InteropError: it is not one of `KNOWN`, or has parts that minigpt's families do not.
    """
    kind = raw.get("model_type")
    if kind not in KNOWN:
        raise InteropError(
            _("model_type {kind!r:.40} is unknown; known are {known}").format(
                kind=kind, known=", ".join(KNOWN)
            )
        )
    if raw.get("auto_map"):
        raise InteropError(_("it asks for remote code (auto_map), which minigpt never runs"))
    if raw.get("quantization_config"):
        raise InteropError(_("its weights are quantized; use the folder of the original weights"))
    try:
        return _classic(raw, block_size) if kind == "gpt2" else _modern(kind, raw, block_size)
    except KeyError as error:
        raise InteropError(_("{error} is missing").format(error=error)) from None
    except ValidationError as error:
        first = error.errors()[0]
        raise InteropError(f"{'.'.join(map(str, first['loc']))}: {plain_problem(first)}") from None


def _only(raw: Mapping[str, Any], **expected: Any) -> None:
    """Refuses settings that minigpt's families do not have."""
    for key, value in expected.items():
        found = raw.get(key)
        if found is not None and found != value:
            raise InteropError(
                _("{key} = {found!r:.60} is not supported, only {value!r}").format(
                    key=key, found=found, value=value
                )
            )


def _classic(raw: Mapping[str, Any], block_size: int | None) -> ClassicConfig:
    _only(
        raw, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False,
        add_cross_attention=False, n_inner=4 * _number(raw, "n_embd", 768),
    )  # fmt: skip
    named = {
        "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh",
        "gelu": "gelu", "relu": "relu",
    }  # fmt: skip
    activation = raw.get("activation_function", "gelu_new")
    if activation not in named:
        raise InteropError(
            _("activation_function = {activation!r:.40} is not supported, only {named}").format(
                activation=activation, named=", ".join(named)
            )
        )
    positions = _number(raw, "n_positions", 1024)
    return ClassicConfig.model_validate(
        {
            "n_layer": raw.get("n_layer", 12), "n_head": raw.get("n_head", 12),
            "n_embd": raw.get("n_embd", 768), "block_size": min(block_size or positions, positions),
            "tie_embeddings": raw.get("tie_word_embeddings", True),
            "activation": named[activation], "norm_eps": raw.get("layer_norm_epsilon", 1e-5),
        }
    )  # fmt: skip


def _modern(kind: str, raw: Mapping[str, Any], block_size: int | None) -> ModernConfig:
    _only(raw, hidden_act="silu", attention_bias=False, mlp_bias=False, partial_rotary_factor=1.0)
    window = _number(raw, "max_position_embeddings", LONGEST_WINDOW)
    if raw.get("use_sliding_window") and _number(raw, "sliding_window", window) < window:
        raise InteropError(_("a sliding window smaller than the model's context is not supported"))
    ropes = [raw.get("rope_parameters") or {}, raw.get("rope_scaling") or {}]
    for rope in ropes:
        scaled = rope.get("rope_type", rope.get("type", "default"))
        if scaled != "default":
            raise InteropError(
                _("rotary positions scaled as {scaled!r:.40} are not supported").format(
                    scaled=scaled
                )
            )
    theta = raw.get("rope_theta", ropes[0].get("rope_theta", 10_000.0))
    heads = raw["num_attention_heads"]
    return ModernConfig.model_validate(
        {
            "n_layer": raw["num_hidden_layers"], "n_head": heads, "n_embd": raw["hidden_size"],
            "n_kv_head": raw.get("num_key_value_heads") or heads,
            "n_hidden": raw["intermediate_size"],
            "head_size": raw.get("head_dim") or (128 if kind == "qwen3" else None),
            "block_size": min(block_size or LONGEST_WINDOW, window), "rope_theta": float(theta),
            "tie_embeddings": raw.get("tie_word_embeddings", False),
            "norm_eps": raw.get("rms_norm_eps", 1e-6),
            "qk_norm": kind == "qwen3", "qkv_bias": kind == "qwen2",
        }
    )  # fmt: skip


def _number(raw: Mapping[str, Any], key: str, default: int) -> int:
    value = raw.get(key)
    value = default if value is None else value
    if type(value) is not int or value < 1:
        raise InteropError(
            _("{key} = {value!r:.40} is not a number of tokens or channels").format(
                key=key, value=value
            )
        )
    return value
