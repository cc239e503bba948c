"""Models with random weights for other programs to open, and texts to trouble them with."""

from typing import Any, cast

import torch
from hypothesis import strategies as st

from minigpt_cli.config.schema import ClassicConfig, ModelConfig, ModernConfig
from minigpt_cli.generation.sampling import Sampling
from minigpt_cli.generation.tokens import GenerationRequest, generate_tokens
from minigpt_cli.model.gpt import GPT
from minigpt_cli.runs.checkpoint import Checkpoint
from minigpt_cli.tokenizer.base import SPLITTINGS, Tokenizer
from minigpt_cli.tokenizer.factory import train_tokenizer
from tests.helpers.checkpoints import checkpoint_of

HOSTILE = (
    "The old heron counts three green lanterns, and so do I.\n\t 'tis 1,024 — naïve?\r\n\r\n"
    "<unk> <|endoftext|> <s></s> [PAD] ▁ Ġ Ċ  \x00\x1c\x1f\x7f\x85\xa0\ufeff\u200b\u2028\u3000"
    "é e\u0301 ñ Å Å ½ Ⅷ ² ǅ ﬁ 中文字,日本語、한국어 עברית العربية हिन्दी "
    "👩‍👩‍👧‍👦 🇩🇪 🏳️‍🌈 \U000e0001\U0010ffff\ue000 ]^-\\&& }{.*+?()|"
)
"""What tokenizers are known to normalize, split, join or swallow."""

anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
texts = st.lists(
    st.one_of(
        st.sampled_from(HOSTILE), st.sampled_from(HOSTILE.split(" ")), anything, st.just(" ")
    ),
    max_size=12,
).map("".join)
"""Any text but halves of characters, which Hugging Face's library cannot take."""
known = st.text(st.sampled_from(sorted(set(HOSTILE))), max_size=60)
"""Texts of the characters in `HOSTILE`."""

SIZES: dict[str, Any] = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 256}
CONFIGS: dict[str, ModelConfig] = {
    "modern": ModernConfig(**SIZES),
    "modern-gqa-tied": ModernConfig(
        **SIZES, n_kv_head=2, n_hidden=50, rope_theta=5e4, tie_embeddings=True
    ),
    "modern-head-of-6": ModernConfig(**SIZES | {"n_head": 5, "n_embd": 30, "dropout": 0.1}),
    "classic": ClassicConfig(**SIZES),
    "classic-relu-no-qkv-bias": ClassicConfig(**SIZES, activation="relu", qkv_bias=False),
    "classic-no-bias-tied": ClassicConfig(**SIZES, bias=False, tie_embeddings=True),
    "classic-head-of-6": ClassicConfig(**SIZES | {"n_head": 5, "n_embd": 30, "dropout": 0.1}),
}


def tokenizer_of(kind: str, text: str = HOSTILE) -> Tokenizer:
    """A tokenizer that knows the text; `word-1` and `bpe-1` split as minigpt 0.1.0 did."""
    name, _, splitting = kind.partition("-")
    size = 400 if name == "bpe" else None
    return train_tokenizer(cast(Any, name), [text], size, int(splitting or SPLITTINGS[0]))


def random_checkpoint(config: ModelConfig, tokenizer: Tokenizer, seed: int = 4) -> Checkpoint:
    """A model whose every weight is drawn, biases and gains too, and whose text does not repeat."""
    torch.manual_seed(seed)
    model = GPT(config, tokenizer.vocab_size).initialize()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name == "token_embedding.weight" and config.tie_embeddings:
                weight.normal_(std=0.02)  # or each token predicts itself
            elif "embedding" in name or name.startswith("head"):
                weight.normal_(std=0.5)
            elif weight.dim() == 2:
                weight.normal_(std=weight.size(1) ** -0.5)
            elif name.endswith("bias"):
                weight.normal_(std=0.1)
            else:
                weight.uniform_(0.5, 1.5)
    return checkpoint_of(model.eval(), tokenizer)


def greedy(checkpoint: Checkpoint, ids: list[int], count: int) -> list[int]:
    """The most likely continuation, as minigpt writes it."""
    request = GenerationRequest([ids], count, Sampling(temperature=0.0))
    steps = generate_tokens(checkpoint.model, request)
    return [token for step in steps if (token := step.tokens[0]) is not None]
