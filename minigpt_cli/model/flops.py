"""How much arithmetic a model costs, from its sizes alone."""

from minigpt_cli.config.schema import ModelConfig


def forward_flops_per_token(config: ModelConfig, vocab_size: int) -> int:
    """Multiplications and additions to score one token at the end of a full window.

    Two for each weight of each matrix product, and 4 T H D per layer for attention's scores and
    weighted values (Chowdhery et al. 2022, appendix B). A training step costs three times this:
    the backward pass does each product twice.
    """
    C, q, kv = config.n_embd, config.n_head * config.head_dim, config.kv_heads * config.head_dim
    attention = C * (q + 2 * kv) + q * C  # query, key, value, projection
    weights = attention + config.feed_forward_matrices * C * config.hidden
    per_layer = 2 * weights + 4 * config.block_size * q
    return config.n_layer * per_layer + 2 * C * vocab_size
