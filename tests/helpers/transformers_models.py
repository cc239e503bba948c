"""Tiny models and tokenizers, as `transformers` writes them."""

from pathlib import Path
from typing import Any

import torch

from tests.helpers.exports import HOSTILE

SIZES: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 128, "rope_theta": 5e4,
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    "gpt2-untied": (
        "GPT2",
        {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 128,
         "activation_function": "relu", "tie_word_embeddings": False, "layer_norm_epsilon": 1e-3},
    ),
    "qwen3": ("Qwen3", {**SIZES, "head_dim": 24}),
    "qwen3-tied": ("Qwen3", {**SIZES, "head_dim": 8, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2", SIZES),
    "llama": ("Llama", {**SIZES, "rms_norm_eps": 1e-5}),
}  # fmt: skip
QWEN = (
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+"""
    r"""[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
PATTERNS = ("gpt2", "qwen", "digits")
END = "<|endoftext|>"


def save_tokenizer(folder: Path, pattern: str) -> Any:
    """A tokenizer as the families' own: byte-level BPE with special and other added tokens."""
    import tokenizers as library
    from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = library.Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern != "qwen")
    first: Any = None
    if pattern == "qwen":
        first = pre_tokenizers.Split(Regex(QWEN), "isolated")
        inner.normalizer = normalizers.NFC()
    elif pattern == "digits":
        first = pre_tokenizers.Digits(individual_digits=True)
    steps = [byte_level] if first is None else [first, byte_level]
    inner.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else byte_level
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[END, "<|im_start|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    inner.train_from_iterator([HOSTILE * 3], trainer)
    inner.add_tokens([library.AddedToken("<think>", special=False)])
    make: Any = PreTrainedTokenizerFast
    theirs = make(tokenizer_object=inner, eos_token=END, bos_token=END)
    theirs.save_pretrained(folder)
    return theirs


def saved(name: str, folder: Path, **options: Any) -> tuple[Any, Any]:
    """A random model of the family and a tokenizer, as `transformers` writes them."""
    import transformers

    tokenizer = save_tokenizer(folder, "qwen" if name.startswith("qwen") else "gpt2")
    family, sizes = MODELS[name]
    config = getattr(transformers, f"{family}Config")(
        **sizes, vocab_size=len(tokenizer) + 7, bos_token_id=0, eos_token_id=0, dtype="float32"
    )
    torch.manual_seed(1)
    make: Any = transformers.AutoModelForCausalLM
    model = make.from_config(config).eval()
    with torch.no_grad():
        for weight_name, weight in model.named_parameters():
            if weight.dim() == 1 and weight_name.endswith("bias"):
                weight.normal_(std=0.1)
            elif weight.dim() == 2:
                weight.normal_(std=0.3)
    dtype = options.pop("dtype", torch.float32)
    model.to(dtype).save_pretrained(folder, **options)
    return model.float(), tokenizer
