"""A checkpoint as a GGUF file, which llama.cpp, Ollama and LM Studio run.

`modern` is written as the architecture `qwen3` and `classic` as `gpt2`. llama.cpp knows one kind of
vocabulary that ours fit into, GPT-2's byte-level one; `char` becomes merges that build each
character from its bytes.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from minigpt_cli.config.schema import ClassicConfig, ModernConfig
from minigpt_cli.errors import InteropError, reraise_as
from minigpt_cli.interop.parts import Names, parsed, weights, with_zero_biases
from minigpt_cli.io.atomic import replacing
from minigpt_cli.language import _
from minigpt_cli.model.gpt import GPT
from minigpt_cli.runs.checkpoint import Checkpoint
from minigpt_cli.tokenizer.base import Tokenizer
from minigpt_cli.tokenizer.bpe import byte_alphabet

GGUFDtype = Literal["fp32", "bf16", "fp16", "q8_0"]
_FILE_TYPES = {
    "fp32": "ALL_F32",
    "bf16": "MOSTLY_BF16",
    "fp16": "MOSTLY_F16",
    "q8_0": "MOSTLY_Q8_0",
}
_TENSOR_TYPES = {"fp32": "F32", "bf16": "BF16", "fp16": "F16", "q8_0": "Q8_0"}
_Q8_BLOCK = 32

_OUTER = {
    "token_embedding": "token_embd", "position_embedding": "position_embd", "norm": "output_norm",
    "head": "output",
}  # fmt: skip
GPT2 = Names(
    outer=_OUTER,
    inner={
        "norm1": "attn_norm", "attention.qkv": "attn_qkv", "attention.proj": "attn_output",
        "norm2": "ffn_norm", "up": "ffn_up", "down": "ffn_down",
    },
    block="blk.{}",
)  # fmt: skip
QWEN3 = Names(
    outer=_OUTER,
    inner={
        "norm1": "attn_norm", "attention.q": "attn_q", "attention.k": "attn_k",
        "attention.v": "attn_v", "attention.proj": "attn_output",
        "attention.q_norm": "attn_q_norm", "attention.k_norm": "attn_k_norm",
        "norm2": "ffn_norm", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
    },
    block="blk.{}",
)  # fmt: skip

_END = "<|minigpt:end|>"
_RELU_SCALE = {"q8_0": 64.0}
_RELU_SCALE_ELSE = 1024.0


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as GGUF has it."""

    tokens: list[str]
    """Each byte as GPT-2's character for it."""
    merges: list[str]
    """Pairs of tokens, the earliest first, each with a space between."""
    end: int
    """The end-of-text token, or one that no text has: llama.cpp insists on one."""
    extra: int = 0
    """How many tokens at the end the model does not have."""


def export_gguf(
    checkpoint: Checkpoint, out: Path, dtype: GGUFDtype = "fp32", force: bool = False
) -> None:
    """Writes the file, whole or not at all.

    Args:
        checkpoint: a model and its tokenizer.
        out: the file to make.
        dtype: of the matrices; norms, biases and positions are fp32 always.
        force: replace a file at `out`.

    Raises:
        InteropError: GGUF cannot hold the model, `out` exists, or the disk refuses.
    """
    check_file(out, force)
    gguf = _library()
    vocabulary = gguf_vocabulary(checkpoint.tokenizer)
    with reraise_as(InteropError, out, "written", hint=_("free some space or choose another path")):
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as temporary:
            config = checkpoint.model.config
            writer = gguf.GGUFWriter(temporary, _architecture(config))
            writer.add_name(out.stem)
            writer.add_file_type(gguf.LlamaFileType[_file_type(dtype)])
            _add_sizes(writer, config)
            _add_vocabulary(gguf, writer, vocabulary, checkpoint.tokenizer)
            for name, tensor in gguf_tensors(checkpoint.model, vocabulary.extra, dtype).items():
                _add_tensor(gguf, writer, name, tensor, dtype)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()


def check_file(out: Path, force: bool) -> None:
    """Refuses to replace a file, unless that is wanted.

    Raises:
        InteropError: with what to do instead.
    """
    with reraise_as(InteropError, out, "read", hint=_("choose another path")):
        if out.is_dir():
            raise InteropError(
                _("{out}: a folder; GGUF is one file, name it like model.gguf").format(out=out)
            )
        if not force and (out.exists() or out.is_symlink()):
            raise InteropError(
                _("{out}: already exists; replace it with --force, or choose another").format(
                    out=out
                )
            )


def caveats(checkpoint: Checkpoint) -> list[str]:
    """What llama.cpp does differently with this model, a sentence each."""
    config = checkpoint.model.config
    found = [
        _("llama.cpp stops at the context window, {block_size:,} tokens.").format(
            block_size=config.block_size
        )
    ]
    if isinstance(config, ClassicConfig) and config.activation == "gelu":
        found.append(
            _("llama.cpp approximates GELU by a tanh: log-probabilities differ by about 0.0005.")
        )
    if _keeps_marks(checkpoint.tokenizer):
        found.append(
            _(
                "llama.cpp splits words at combining marks, as in Hindi or decomposed "
                "accents: such prompts may be cut into other tokens."
            )
        )
    if checkpoint.tokenizer.kind == "char":
        found.append(_("llama.cpp drops characters that the vocabulary lacks, without an error."))
    return found


def _keeps_marks(tokenizer: Tokenizer) -> bool:
    """Whether a token may hold parts of a letter and of a mark, which GPT-2's pattern separates."""
    if tokenizer.kind != "bpe":
        return False
    saved = json.loads(tokenizer.to_json())["tokenizer"]
    if saved["pre_tokenizer"]["type"] == "ByteLevel":  # that is GPT-2's pattern
        return False
    return any(len(token) > 1 and not token.isascii() for token in tokenizer.token_bytes)


def gguf_vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """The tokenizer as GPT-2's kind of vocabulary.

    Raises:
        InteropError: it cannot be one.
    """
    alphabet = byte_alphabet()
    tokens = ["".join(alphabet[byte] for byte in token) for token in tokenizer.token_bytes]
    own_end = tokenizer.end_of_text
    if own_end is not None:
        tokens[own_end] = _END
    if tokenizer.kind == "char":
        merges = dict.fromkeys(
            f"{token[:i]} {token[i]}" for token in tokens[:own_end] for i in range(1, len(token))
        )
        # llama.cpp insists on merges, which ASCII does not need; this one joins what no text has.
        merges_or_dummy = [*merges] or [f"{_END} {_END}"]
        if own_end is not None:
            return Vocabulary(tokens, merges_or_dummy, own_end)
        return Vocabulary([*tokens, _END], merges_or_dummy, end=len(tokens), extra=1)
    if tokenizer.kind == "word":
        raise InteropError(
            _(
                "GGUF cannot hold a word tokenizer: llama.cpp has none that keeps both words "
                "and white space; export to Hugging Face, or train with another tokenizer"
            ),
            settings=("data.tokenizer=bpe",),
        )
    if tokenizer.kind == "pretrained":
        raise InteropError(
            _(
                "GGUF is written for minigpt's own tokenizers only; export to Hugging Face, "
                "and use llama.cpp's convert_hf_to_gguf.py"
            )
        )
    saved = json.loads(tokenizer.to_json())
    pairs = saved["tokenizer"]["model"]["merges"] if tokenizer.kind == "bpe" else []
    end = alphabet[0xFF]  # in no UTF-8 text, so the model never learned to write it
    merges_or_dummy = [" ".join(pair) for pair in pairs] or [f"{end} {end}"]
    return Vocabulary(tokens, merges_or_dummy, tokens.index(end) if own_end is None else own_end)


def gguf_tensors(model: GPT, extra: int, dtype: GGUFDtype) -> dict[str, Tensor]:
    """The weights by GGUF's names, on the CPU.

    Args:
        model: either family.
        extra: rows to append to the embedding and the head, for tokens that the model lacks.
        dtype: what the matrices will be rounded to.
    """
    config = model.config
    names = GPT2 if isinstance(config, ClassicConfig) else QWEN3
    tensors = weights(model, names)
    if isinstance(config, ClassicConfig):
        tensors = with_zero_biases(tensors)
    elif not config.qk_norm:
        tensors = with_zero_biases(tensors, ("attention.q", "attention.k", "attention.v"))
    found = {}
    for name, tensor in tensors.items():
        _, layer, kind = parsed(name)
        if extra and layer in ("token_embedding", "head"):
            # Its logit is the mean of all logits, so it is never the most likely token.
            mean = tensor.mean(0, keepdim=True).expand(extra, -1)
            tensor = torch.cat((tensor, mean))  # noqa: PLW2901
        if isinstance(config, ClassicConfig) and config.activation == "relu":
            # llama.cpp has GELU alone here: GELU(s x) / s is ReLU(x), but for 0.17 / s around 0.
            scale = _RELU_SCALE.get(dtype, _RELU_SCALE_ELSE)
            if layer == "up":
                tensor = tensor * scale  # noqa: PLW2901
            elif layer == "down" and kind == "weight":
                tensor = tensor / scale  # noqa: PLW2901
        found[names.theirs(name)] = tensor.to("cpu", torch.float32)
    return found


def _library() -> Any:
    try:
        import gguf
    except ImportError:
        raise InteropError(
            _("GGUF needs the gguf package; install it with: pip install 'minigpt-cli[interop]'")
        ) from None
    return gguf


def _architecture(config: ClassicConfig | ModernConfig) -> str:
    """llama.cpp's name; a model without QK-norm is a Qwen2, whose biases may be zero."""
    if isinstance(config, ClassicConfig):
        return "gpt2"
    if config.qk_norm and config.qkv_bias:
        raise InteropError(
            _(
                "llama.cpp has no model with both QK-norm and biases of queries, keys and "
                "values; train without one"
            ),
            settings=("model.qkv_bias=false",),
        )
    return "qwen3" if config.qk_norm else "qwen2"


def _file_type(dtype: GGUFDtype) -> str:
    return "ALL_F32" if dtype == "fp32" else f"MOSTLY_{_TENSOR_TYPES[dtype]}"


def _add_sizes(writer: Any, config: ClassicConfig | ModernConfig) -> None:
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.hidden)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.kv_heads)
    if isinstance(config, ClassicConfig):
        writer.add_layer_norm_eps(config.norm_eps)
        return
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)


def _add_vocabulary(gguf: Any, writer: Any, vocabulary: Vocabulary, tokenizer: Tokenizer) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary.tokens)
    kinds = [gguf.TokenType.NORMAL] * len(vocabulary.tokens)
    if vocabulary.tokens[vocabulary.end] == _END:  # a control token would be found in prompts
        kinds[vocabulary.end] = gguf.TokenType.UNUSED
    writer.add_token_types(kinds)
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(tokenizer.start_ids[0])  # where an empty prompt begins
    writer.add_eos_token_id(vocabulary.end)  # without it, token 11 would end every text
    writer.add_add_bos_token(False)
    if vocabulary.extra:
        writer.add_array("tokenizer.ggml.suppress_tokens", [vocabulary.end])


def _add_tensor(gguf: Any, writer: Any, name: str, tensor: Tensor, dtype: GGUFDtype) -> None:
    """Adds a tensor; matrices in the wanted type, or in fp16 where Q8_0's blocks do not fit."""
    values = np.ascontiguousarray(tensor.numpy())
    kind = _TENSOR_TYPES[dtype]
    if tensor.dim() < 2 or name.startswith(_OUTER["position_embedding"]):
        kind = "F32"
    elif kind == "Q8_0" and tensor.size(-1) % _Q8_BLOCK:
        kind = "F16"
    number = gguf.GGMLQuantizationType[kind]
    if kind in ("F32", "F16"):  # the library takes their types from the array
        writer.add_tensor(name, values.astype(np.float32 if kind == "F32" else np.float16))
    else:
        writer.add_tensor(name, gguf.quants.quantize(values, number), raw_dtype=number)
