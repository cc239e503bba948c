"""The GPT: token ids in, logits out.

Every family shares this skeleton: embed, run the blocks, normalize, score every token. What tells
families apart is in `classic` and `modern`; a new family is a module like these, a config class
and an entry in `FAMILIES`.

Shapes: B batch, T time, C n_embd, V vocab; inside a block see `block`.

Weights are kept in fp32. `GPT.compute_dtype` decides the precision of everything between the
embedding and the loss: activations start in it, and each layer casts its weights to match.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt_cli.config.schema import ClassicConfig, ModelConfig, ModernConfig
from minigpt_cli.errors import NonFiniteError
from minigpt_cli.model.block import Family
from minigpt_cli.model.classic import CLASSIC
from minigpt_cli.model.kv_cache import KVCache
from minigpt_cli.model.layers import Dropout, Embedding, Linear
from minigpt_cli.model.modern import MODERN

FAMILIES: dict[type[ClassicConfig | ModernConfig], Family] = {
    ClassicConfig: CLASSIC,
    ModernConfig: MODERN,
}


def check_logits(logits: Tensor) -> Tensor:
    """Returns the logits, or log-probabilities, if they are numbers to work with.

    Raises:
        NonFiniteError: one is NaN or infinite.
    """
    if not all(map(math.isfinite, logits.detach().aminmax())):  # NaN if one is
        raise NonFiniteError
    return logits


class GPT(nn.Module):
    """Token ids to logits, or to a loss.

    Its weights are undefined until `initialize` draws them or a checkpoint fills them.

    Args:
        config: one family's sizes.
        vocab_size: V, which the tokenizer decides.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        self.family = family = FAMILIES[type(config)]
        self.compute_dtype = torch.float32
        self.token_embedding = Embedding(vocab_size, config.n_embd)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(family.block(config) for _ in range(config.n_layer))
        self.position_embedding = family.positions(config)
        self.norm = family.norm(config)
        self.head = Linear(config.n_embd, (vocab_size,), bias=False)
        if config.tie_embeddings:
            self.head.weight = self.token_embedding.weight

    @torch.no_grad()
    def initialize(self) -> Self:
        """Draws every weight from the global random state, as the family wants it."""
        self._skip_random_numbers()
        for name, weight in self.named_parameters():
            if name.endswith("bias"):
                weight.zero_()
            elif weight.dim() < 2:  # of a norm
                weight.fill_(1.0)
            else:
                self.family.draw(name, weight, self.config)
        return self

    def _skip_random_numbers(self) -> None:
        """Draws what the constructors of PyTorch's layers would, to no effect.

        minigpt 0.1.0 let them: only so does a seed make the same model in every version.
        """
        embeddings = (self.token_embedding, self.position_embedding)
        for module in (*embeddings, *self.blocks.modules(), self.head):
            if isinstance(module, Embedding):
                nn.Embedding.reset_parameters(module)
            elif isinstance(module, Linear):
                nn.Linear.reset_parameters(module)

    @property
    def has_relative_positions(self) -> bool:
        """Whether a full cache may drop its oldest tokens."""
        return self.position_embedding.are_relative

    @contextmanager
    def evaluating(self, dtype: torch.dtype | None = None) -> Iterator[None]:
        """Turns dropout off inside this context, and computes in `dtype` if one is given.

        Afterwards both are as before.
        """
        was_training, compute_dtype = self.training, self.compute_dtype
        self.eval()
        self.compute_dtype = dtype or compute_dtype
        try:
            yield
        finally:
            self.train(was_training)
            self.compute_dtype = compute_dtype

    def new_cache(
        self, batch: int, most: int | None = None, dtype: torch.dtype = torch.float32
    ) -> KVCache:
        """An empty cache for `batch` texts decoded side by side.

        Args:
            batch: B.
            most: how many tokens of each text are read at most; by default any number.
            dtype: of the keys and values. PyTorch's attention of one query is eight times as fast
                in fp32 as in bf16 on a CPU.
        """
        config = self.config
        length = config.block_size if most is None else min(most, config.block_size)
        shape = (batch, config.kv_heads, length, config.head_dim)
        return KVCache(config.n_layer, shape, self.head.weight.device, dtype)

    def forward(
        self, idx: Tensor, targets: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        """Scores the next token after every token.

        Args:
            idx: token ids, (B, T), T ≤ `block_size`.
            targets: the tokens that came next, (B, T); with them the result is the loss.
            cache: empty; takes the keys and values of `idx`, for a `Decoder` to go on from.

        Returns:
            Logits in fp32, (B, T, V); with a cache only the last position's, (B, 1, V); with
            targets the mean cross-entropy in nats.
        """
        T = idx.size(1)
        assert self.config.block_size >= T
        x = self.position_embedding.add(self.token_embedding(idx), 0, T)  # (B, T, C)
        x = self.dropout(x.to(self.compute_dtype))
        rotary = self.position_embedding.rotary(0, T, self.compute_dtype, idx.device)
        for i, block in enumerate(self.blocks):
            x = block(x, rotary, None if cache is None else partial(cache.fill, i))
        if cache is not None:
            cache.length = T
            x = x[:, -1:]
        logits: Tensor = self.head(self.norm(x)).float()  # (B, T, V)
        if targets is None:
            return logits
        return F.cross_entropy(logits.view(-1, self.vocab_size), targets.reshape(-1))


@torch.no_grad()
def copy_weights(source: GPT, target: GPT) -> None:
    """Gives a model the weights of another, which may have a longer window."""
    new = dict(target.named_parameters())
    for name, weight in source.named_parameters():
        new[name].copy_(weight[: new[name].size(0)])  # of learned positions, the first
