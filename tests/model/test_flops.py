"""The FLOPs computed from a model's sizes, against PyTorch's counter on a real forward pass."""

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minigpt_cli.config.schema import ClassicConfig, ModelConfig, ModernConfig
from minigpt_cli.model.flops import forward_flops_per_token
from minigpt_cli.model.gpt import GPT

SIZES: dict[str, Any] = {"n_layer": 3, "n_head": 4, "n_embd": 32, "block_size": 24}


@pytest.mark.parametrize(
    "config",
    [
        ClassicConfig(**SIZES),
        ClassicConfig(**SIZES, bias=False, tie_embeddings=True),
        ModernConfig(**SIZES),
        ModernConfig(**SIZES, n_kv_head=1, n_hidden=40, tie_embeddings=True),
    ],
    ids=["classic", "classic-tied", "modern", "modern-grouped"],
)
def test_flops_equal_pytorchs_count_of_a_full_window(config: ModelConfig) -> None:
    # Both count matrix products only. Attention: each query with all `block_size` keys, the masked
    # ones included, as the counter sees PyTorch's plain kernel do; causal kernels may skip half.
    # Exact for every position only so: the average query needs (block_size + 1) / 2 keys.
    model = GPT(config, vocab_size=61).initialize().eval()
    idx = torch.zeros(2, config.block_size, dtype=torch.int64)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(idx)
    assert counter.get_total_flops() == idx.numel() * forward_flops_per_token(config, 61)
