"""Random models, and a reference: both families written out from their papers.

The reference is dense and in double precision, and shares nothing with the package but the names
of the weights: a head at a time, the whole square of scores, rotations as complex numbers.
`tests/model/test_gpt.py` compares it, too, with Hugging Face's models.

Shapes: T time, C n_embd, D head_dim, V vocab; one text at a time.
"""

import math

import torch
from torch import Tensor

from minigpt_cli.config.schema import ClassicConfig, ModelConfig, ModernConfig
from minigpt_cli.model.gpt import GPT

Weights = dict[str, Tensor]


def random_gpt(config: ModelConfig, vocab_size: int = 50, seed: int = 0) -> GPT:
    """A model in evaluation mode whose every weight is random, norms and biases included.

    The package starts many weights at 0 or 1, which would hide mistakes.
    """
    model = GPT(config, vocab_size)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if name.endswith("bias"):
                weight.copy_(0.3 * noise)
            elif weight.dim() == 1:
                weight.copy_(1 + 0.3 * noise)
            else:
                weight.copy_(noise / weight.size(1) ** 0.5)
    return model.eval()


def weights_of(model: GPT) -> Weights:
    """The weights as leaves in double precision, for gradients; tied ones are the same tensor."""
    weights = {
        name: parameter.detach().double().clone().requires_grad_()
        for name, parameter in model.named_parameters()
    }
    weights.setdefault("head.weight", weights["token_embedding.weight"])
    return weights


def logits(model: GPT, tokens: list[int], band: int | None = None) -> Tensor:
    """Scores after every token, (T, V); each attends to `band` tokens, itself included, or all."""
    with torch.no_grad():
        return forward(model.config, weights_of(model), torch.tensor(tokens), band)


def forward(config: ModelConfig, w: Weights, tokens: Tensor, band: int | None = None) -> Tensor:
    T = len(tokens)
    distance = torch.arange(T)[:, None] - torch.arange(T)[None, :]
    seen = (distance >= 0) & (distance < (band or T))  # (T, T)
    x = w["token_embedding.weight"][tokens]  # (T, C)
    if isinstance(config, ClassicConfig):
        x = x + w["position_embedding.weight"][:T]
    for layer in range(config.n_layer):
        prefix = f"blocks.{layer}."
        block = {name[len(prefix) :]: p for name, p in w.items() if name.startswith(prefix)}
        normed = _norm(config, block, "norm1", x)
        if isinstance(config, ClassicConfig):
            heads = _classic_attention(config, block, normed, seen)
        else:
            heads = _modern_attention(config, block, normed, seen)
        x = x + _linear(heads, block, "attention.proj")
        x = x + _linear(
            _feed_forward(config, block, _norm(config, block, "norm2", x)), block, "down"
        )
    return _norm(config, w, "norm", x) @ w["head.weight"].T


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """The guide's formula, softmax(q kᵀ / √D) v, of one head: (T, D) each."""
    scores = torch.einsum("id,jd->ij", q, k) / math.sqrt(q.shape[1])
    weights = torch.where(seen, (scores - scores.max()).exp(), 0.0)
    return torch.einsum("ij,jd->id", weights / weights.sum(1, keepdim=True), v)


def _classic_attention(config: ClassicConfig, w: Weights, x: Tensor, seen: Tensor) -> Tensor:
    q, k, v = _linear(x, w, "attention.qkv").chunk(3, dim=1)
    D = config.head_dim
    heads = [slice(h * D, (h + 1) * D) for h in range(config.n_head)]
    return torch.cat([softmax_attention(q[:, h], k[:, h], v[:, h], seen) for h in heads], dim=1)


def _modern_attention(config: ModernConfig, w: Weights, x: Tensor, seen: Tensor) -> Tensor:
    D, share = config.head_dim, config.n_head // config.kv_heads
    sizes = [config.n_head * D, config.kv_heads * D, config.kv_heads * D]
    queries, keys, values = (x @ part.T for part in torch.split(w["attention.qkv.weight"], sizes))
    outs = []
    for head in range(config.n_head):
        kv = head // share  # neighboring queries share a key
        q = _rms(queries[:, head * D : (head + 1) * D], w["attention.q_norm.weight"])
        k = _rms(keys[:, kv * D : (kv + 1) * D], w["attention.k_norm.weight"])
        q, k = _rotated(q, config.rope_theta), _rotated(k, config.rope_theta)
        outs.append(softmax_attention(q, k, values[:, kv * D : (kv + 1) * D], seen))
    return torch.cat(outs, dim=1)


def _rotated(x: Tensor, theta: float) -> Tensor:
    """Channel i and channel i + D/2 are a complex number, rotated by position · theta^(-2i/D)."""
    T, D = x.shape
    frequency = torch.tensor([theta ** (-2 * i / D) for i in range(D // 2)], dtype=torch.float64)
    angle = torch.arange(T, dtype=torch.float64)[:, None] * frequency
    rotated = torch.complex(x[:, : D // 2], x[:, D // 2 :]) * torch.polar(
        torch.ones_like(angle), angle
    )
    return torch.cat((rotated.real, rotated.imag), dim=1)


def _feed_forward(config: ModelConfig, w: Weights, x: Tensor) -> Tensor:
    if isinstance(config, ModernConfig):
        gate, up = (x @ w["gate_up.weight"].T).chunk(2, dim=1)
        return gate / (1 + (-gate).exp()) * up
    x = _linear(x, w, "up")
    if config.activation == "relu":
        return x.clamp(min=0)
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def _norm(config: ModelConfig, w: Weights, name: str, x: Tensor) -> Tensor:
    if isinstance(config, ModernConfig):
        return _rms(x, w[f"{name}.weight"])
    centered = x - x.mean(1, keepdim=True)
    out = centered / (centered.square().mean(1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"]
    return out + w[f"{name}.bias"] if f"{name}.bias" in w else out


def _rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(1, keepdim=True) + 1e-6).sqrt() * weight


def _linear(x: Tensor, w: Weights, name: str) -> Tensor:
    out = x @ w[f"{name}.weight"].T
    return out + w[f"{name}.bias"] if f"{name}.bias" in w else out
