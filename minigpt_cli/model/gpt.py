"""The GPT: token ids in, logits out.

Two families share one skeleton, `GPT`: embed, run the blocks, normalize, score every token.
`classic` is GPT-2 (Radford et al. 2019), `modern` is Qwen3 (Yang et al. 2025); each is a block
and a position scheme of its own, chosen once in the constructor.

Shapes: B batch, T time, C n_embd, H n_head, K n_kv_head, D head_dim, F hidden, V vocab.

Weights are kept in fp32. `GPT.compute_dtype` decides the precision of everything between the
embedding and the loss: activations start in it, and each layer casts its weights to match.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt_cli.config.schema import ClassicConfig, ModelConfig, ModernConfig
from minigpt_cli.model.attention import causal_attention
from minigpt_cli.model.kernels import apply_rotary, dropout, rms_norm, swiglu
from minigpt_cli.model.kv_cache import KVCache

Store = Callable[[Tensor, Tensor], None]
"""Takes the keys and values that a layer computed, (B, K, T, D) each."""


class Linear(nn.Linear):
    """A linear layer that computes in the dtype of its input.

    `rows` says how many output rows each of the matrices stacked in the weight has: query, key
    and value are one product here, but three matrices to an optimizer that orthogonalizes them.
    """

    def __init__(self, n_in: int, rows: tuple[int, ...], bias: bool) -> None:
        super().__init__(n_in, sum(rows), bias)
        self.rows = rows
        self.int8: tuple[Tensor, Tensor] | None = None
        """The weight as whole numbers, (out, in), and a scale for each row, once quantized."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class Dropout(nn.Dropout):
    """Zeroes a share of the activations while training (Srivastava et al. 2014)."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training and self.p else x


class LayerNorm(nn.Module):
    """Zero mean and unit variance over C, then a weight and perhaps a bias (Ba et al. 2016)."""

    def __init__(self, n_embd: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_embd))
        self.bias = nn.Parameter(torch.zeros(n_embd)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.layer_norm(x, self.weight.shape, self.weight.to(x.dtype), bias)


class RMSNorm(nn.Module):
    """Unit root mean square over the last axis, then a weight (Zhang & Sennrich 2019)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight.to(x.dtype))


class Rotary:
    """Rotary positions (Su et al. 2021): pairs of channels turn by an angle per position.

    Angles are computed in double precision, on the CPU (some devices have none): a long text has
    large positions. A table of two windows is kept, and replaced when decoding leaves it.
    """

    def __init__(self, head_dim: int, theta: float, window: int) -> None:
        exponent = torch.arange(0, head_dim, 2, dtype=torch.float64, device="cpu") / head_dim
        self._frequency, self._window = theta**-exponent, window  # (D/2,)
        self._kept: tuple[int, torch.dtype, torch.device] | None = None

    def __call__(
        self, start: int, length: int, dtype: torch.dtype, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Cosines and sines of `length` positions from `start`, (T, D) each.

        The sine's first half is negated: a turn is two products and a sum (`kernels.apply_rotary`).
        """
        first = start - start % self._window
        if self._kept != (first, dtype, device):
            with torch.inference_mode(False):  # training may use what an evaluation made
                position = torch.arange(first, first + 2 * self._window, dtype=torch.float64)
                angle = torch.outer(position, self._frequency)  # (2 T, D/2)
                cos, sin = angle.cos(), angle.sin()
                self._cos = torch.cat((cos, cos), -1).to(device, dtype)
                self._sin = torch.cat((-sin, sin), -1).to(device, dtype)
            self._kept = (first, dtype, device)
        rows = slice(start - first, start - first + length)
        return self._cos[rows], self._sin[rows]


class ClassicAttention(nn.Module):
    """Multi-head causal self-attention with biases, as in GPT-2."""

    def __init__(self, config: ClassicConfig) -> None:
        super().__init__()
        C, bias = config.n_embd, config.bias
        self.n_head, self.dropout = config.n_head, config.dropout
        self.qkv = Linear(C, (C, C, C), bias=bias and config.qkv_bias)
        self.proj = Linear(C, (C,), bias=bias)

    def forward(self, x: Tensor, store: Store | None) -> Tensor:
        B, T, C = x.shape
        q, k, v = (
            part.view(B, T, self.n_head, -1).transpose(1, 2)  # (B, H, T, D)
            for part in torch.split(self.qkv(x), C, dim=-1)
        )
        if store is not None:
            store(k, v)
        out = causal_attention(q, k, v, self.dropout if self.training else 0.0)
        projected: Tensor = self.proj(out.reshape(B, T, C))
        return projected


class ModernAttention(nn.Module):
    """Grouped-query causal self-attention with QK-norm and rotary positions, as in Qwen3."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        C, D = config.n_embd, config.head_dim
        self.heads = (config.n_head, config.kv_heads, config.kv_heads)
        self.head_dim = D
        self.qkv = Linear(C, (C, config.kv_heads * D, config.kv_heads * D), bias=False)
        self.q_norm, self.k_norm = RMSNorm(D), RMSNorm(D)
        self.proj = Linear(C, (C,), bias=False)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], store: Store | None) -> Tensor:
        B, T, C = x.shape
        qkv = self.qkv(x).view(B, T, sum(self.heads), self.head_dim)
        q, k, v = torch.split(qkv, list(self.heads), dim=2)  # (B, T, H or K, D)
        q = apply_rotary(self.q_norm(q).transpose(1, 2), rotary)  # (B, H, T, D)
        k = apply_rotary(self.k_norm(k).transpose(1, 2), rotary)  # (B, K, T, D)
        v = v.transpose(1, 2)
        if store is not None:
            store(k, v)
        out = causal_attention(q, k, v)
        projected: Tensor = self.proj(out.reshape(B, T, C))
        return projected


class ClassicBlock(nn.Module):
    """Pre-LayerNorm attention and a 4× feed-forward part, each added to the residual."""

    def __init__(self, config: ClassicConfig) -> None:
        super().__init__()
        C, bias = config.n_embd, config.bias
        self.norm1, self.attention = LayerNorm(C, bias), ClassicAttention(config)
        self.norm2 = LayerNorm(C, bias)
        self.up, self.down = Linear(C, (4 * C,), bias), Linear(4 * C, (C,), bias)
        self.activation = nn.ReLU() if config.activation == "relu" else nn.GELU()
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, _: None, store: Store | None) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), store))
        out: Tensor = x + self.dropout(self.down(self.activation(self.up(self.norm2(x)))))
        return out


class ModernBlock(nn.Module):
    """Pre-RMSNorm attention and a SwiGLU feed-forward part (Shazeer 2020)."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        C, hidden = config.n_embd, config.hidden
        self.norm1, self.attention = RMSNorm(C), ModernAttention(config)
        self.norm2 = RMSNorm(C)
        self.gate_up = Linear(C, (hidden, hidden), bias=False)
        self.down = Linear(hidden, (C,), bias=False)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], store: Store | None) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), rotary, store))
        hidden = swiglu(self.gate_up(self.norm2(x)))  # (B, T, F)
        out: Tensor = x + self.dropout(self.down(hidden))
        return out


class GPT(nn.Module):
    """Token ids to logits, or to a loss.

    Args:
        config: one family's sizes.
        vocab_size: V, which the tokenizer decides.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        self.compute_dtype = torch.float32
        C = config.n_embd
        self.token_embedding = nn.Embedding(vocab_size, C)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList()
        self.norm: nn.Module
        if isinstance(config, ClassicConfig):
            self.position_embedding = nn.Embedding(config.block_size, C)
            self.blocks.extend(ClassicBlock(config) for _ in range(config.n_layer))
            self.norm = LayerNorm(C, config.bias)
        else:
            self.rotary = Rotary(config.head_dim, config.rope_theta, config.block_size)
            self.blocks.extend(ModernBlock(config) for _ in range(config.n_layer))
            self.norm = RMSNorm(C)
        self.head = Linear(C, (vocab_size,), bias=False)
        if config.tie_embeddings:
            self.head.weight = self.token_embedding.weight
        self._initialize()

    @property
    def has_relative_positions(self) -> bool:
        """Whether a full cache may drop its oldest tokens: positions are relative."""
        return isinstance(self.config, ModernConfig)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside this context there is no dropout; afterwards it is as it was."""
        was_training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(was_training)

    def new_cache(self, batch: int) -> KVCache:
        """An empty cache for `batch` texts decoded side by side."""
        config = self.config
        heads = config.kv_heads if isinstance(config, ModernConfig) else config.n_head
        shape = (batch, heads, config.block_size, config.head_dim)
        return KVCache(config.n_layer, shape, self.head.weight.device)

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
        assert idx.size(1) <= self.config.block_size
        x, positions = self._embed(idx)
        x = self.dropout(x)
        for i, block in enumerate(self.blocks):
            x = block(x, positions, None if cache is None else partial(cache.fill, i))
        if cache is not None:
            cache.length = idx.size(1)
            x = x[:, -1:]
        logits: Tensor = self.head(self.norm(x)).float()  # (B, T, V)
        if targets is None:
            return logits
        return F.cross_entropy(logits.view(-1, self.vocab_size), targets.reshape(-1))

    def _embed(self, idx: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """The residual stream's first state, (B, T, C), and rotary angles if the family has any."""
        x = self.token_embedding(idx)
        if self.has_relative_positions:
            rotary = self.rotary(0, idx.size(1), self.compute_dtype, idx.device)
            return x.to(self.compute_dtype), rotary
        x = x + self.position_embedding.weight[: idx.size(1)]
        return x.to(self.compute_dtype), None

    @torch.no_grad()
    def _initialize(self) -> None:
        """Sets every weight.

        `classic` as GPT-2: normal of deviation 0.02, residual projections smaller by √(2 n_layer).
        `modern`: matrices keep the variance of their input, projections back into the residual
        start at zero so that each block starts as the identity, embeddings have unit variance,
        and the head starts so small that every token is equally likely.
        """
        C = self.config.n_embd
        classic = isinstance(self.config, ClassicConfig)
        for name, weight in self.named_parameters():
            residual = name.endswith(("proj.weight", "down.weight"))
            if name.endswith("bias"):
                weight.zero_()
            elif weight.dim() < 2:
                weight.fill_(1.0)
            elif classic:
                nn.init.normal_(
                    weight, std=0.02 / math.sqrt(2 * self.config.n_layer) if residual else 0.02
                )
            elif residual:
                weight.zero_()
            elif weight is self.head.weight:  # also the embedding's, when tied
                nn.init.normal_(weight, std=0.02 if self.config.tie_embeddings else 0.001)
            elif weight is self.token_embedding.weight:
                nn.init.normal_(weight, std=1.0)
            else:
                bound = math.sqrt(3 / C)
                nn.init.uniform_(weight, -bound, bound)
