"""A checkpoint as a folder that Hugging Face's `transformers` opens without our code.

`modern` is written as Qwen3 and `classic` as GPT-2. The files are what `from_pretrained` looks for;
each key in them is there because some version of a reader would otherwise assume another value.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from minigpt_cli.config.schema import ClassicConfig, ModelConfig, ModernConfig
from minigpt_cli.errors import InteropError, reraise_as
from minigpt_cli.interop.hf_tokenizer import TOKENIZER_CONFIG, to_hf
from minigpt_cli.interop.model_card import model_card
from minigpt_cli.interop.parts import Names, weights, with_zero_biases
from minigpt_cli.io.atomic_folder import replacing_folder
from minigpt_cli.model.kernels import EPSILON
from minigpt_cli.runs.checkpoint import Checkpoint

ExportDtype = Literal["fp32", "bf16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

WEIGHTS = "model.safetensors"
FILES = (
    "README.md", "config.json", "generation_config.json", WEIGHTS, "tokenizer.json",
    "tokenizer_config.json",
)  # fmt: skip
"""What an exported folder holds, and nothing else."""

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
QWEN3 = Names(
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


def export_hf(
    checkpoint: Checkpoint, out: Path, dtype: ExportDtype = "fp32", force: bool = False
) -> None:
    """Writes the folder, whole or not at all.

    Args:
        checkpoint: a model and its tokenizer.
        out: the folder to make.
        dtype: of the weights.
        force: replace an earlier export at `out`.

    Raises:
        InteropError: `out` exists and may not be replaced, or the disk refuses.
    """
    check_folder(out, force)
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    texts = {
        "README.md": model_card(checkpoint, out.resolve().name),
        "config.json": _json(hf_config(model.config, model.vocab_size, dtype)),
        "generation_config.json": _json(
            {
                # Without a prompt, generation begins where ours does.
                "bos_token_id": tokenizer.start_ids[0],
                "eos_token_id": None,
                "pad_token_id": None,
            }
        ),
        "tokenizer.json": to_hf(tokenizer).to_str(),
        "tokenizer_config.json": _json(
            {**TOKENIZER_CONFIG, "model_max_length": model.config.block_size}
        ),
    }
    hint, also = "free some space or choose another path", (SafetensorError,)
    with reraise_as(InteropError, out, "written", hint=hint, also=also):
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing_folder(out) as folder:
            for name, text in texts.items():
                (folder / name).write_text(text, encoding="utf-8", newline="\n")
            save_file(hf_tensors(checkpoint, _DTYPES[dtype]), folder / WEIGHTS, {"format": "pt"})
            with suppress(PermissionError):  # the library lets nobody else read its file
                (folder / WEIGHTS).chmod((folder / "config.json").stat().st_mode & 0o777)


def check_folder(out: Path, force: bool) -> None:
    """Refuses to replace a folder, unless it is an earlier export and that is wanted.

    Raises:
        InteropError: with what to do instead.
    """
    with reraise_as(InteropError, out, "read", hint="choose another path"):
        if not out.exists() and not out.is_symlink():
            return
        if not force:
            raise InteropError(f"{out}: already exists; replace it with --force, or choose another")
        if not out.is_dir() or out.is_symlink():
            raise InteropError(f"{out}: not a folder; choose another path")
        others = sorted(entry.name for entry in out.iterdir() if entry.name not in FILES)
    if others:
        raise InteropError(
            f"{out}: --force would delete {others[0]!r}, which is not part of an export; "
            "choose another path"
        )


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
    return _qwen3_config(config) | shared


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
        "activation_function": config.activation,
        "layer_norm_epsilon": 1e-5,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
    }


def _qwen3_config(config: ModernConfig) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.kv_heads,
        "hidden_size": config.n_embd,
        "intermediate_size": config.hidden,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.block_size,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rms_norm_eps": EPSILON,
        # transformers 4 reads the first, 5 the second.
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        # Past the window the oldest tokens drop out, as in our cache.
        "use_sliding_window": True,
        "sliding_window": config.block_size,
        "max_window_layers": 0,
    }


def hf_tensors(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights by the names of `transformers`."""
    classic = isinstance(checkpoint.model.config, ClassicConfig)
    names = GPT2 if classic else QWEN3
    tensors = weights(checkpoint.model, names)
    if classic:  # GPT-2 always has biases
        tensors = with_zero_biases(tensors)
    return {
        names.theirs(name): (tensor.T if names.is_transposed(name) else tensor)
        .to("cpu", dtype)
        .contiguous()
        for name, tensor in tensors.items()
    }


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"
