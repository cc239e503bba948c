"""Writing with a model: read the prompt once, then a token at a time through the cache.

Shapes: B texts side by side, T time, V vocab.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt_cli.errors import ConfigError
from minigpt_cli.kv_cache import KVCache
from minigpt_cli.model import GPT
from minigpt_cli.tokenizer import StreamDecoder, Tokenizer


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen from its distribution."""

    temperature: float = 0.8
    """Divides the logits: below 1 bolder about the likely, above 1 wilder; 0 takes the best."""
    top_k: int | None = None
    """Only the k likeliest tokens may be drawn."""
    top_p: float | None = None
    """Only the likeliest tokens that together reach this probability may be drawn."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: one is outside its range.
        """
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(
                f"--temperature {self.temperature}: must be 0 (always the likeliest) or more"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"--top-k {self.top_k}: must be 1 or more; leave it out for no limit")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"--top-p {self.top_p}: must be above 0 and at most 1")


def generate(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int,
    sampling: Sampling | None = None,
) -> Iterator[str]:
    """Continues a prompt, piece by piece.

    Pieces are whole characters; joined, they are what decoding all new tokens gives.

    Raises:
        TokenizerError: the prompt holds characters the tokenizer does not know.
    """
    decoder = StreamDecoder(tokenizer.token_bytes)
    for tokens in generate_tokens(model, prompt_ids(tokenizer, prompt), max_new_tokens, sampling):
        yield decoder.push(tokens[0])
    yield decoder.flush()


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The prompt's tokens; an empty prompt starts from a line break."""
    return tokenizer.encode(prompt) or tokenizer.start_ids


def generate_tokens(
    model: GPT,
    prompt: list[int],
    max_new_tokens: int,
    sampling: Sampling | None = None,
    num_samples: int = 1,
) -> Iterator[list[int]]:
    """Continues a prompt `num_samples` times side by side.

    Of a longer prompt the last `block_size` tokens are read. Past the window, `modern` models
    slide: the oldest keys make room for new ones. `classic` models have absolute positions, so
    they read the last half window again and go on from there.

    Args:
        model: writes without dropout, whatever mode it is in.
        prompt: at least one token.
        max_new_tokens: how many to write.
        sampling: how to choose them.
        num_samples: B.

    Yields:
        The next token of each sample.
    """
    sampling = sampling or Sampling()
    generators = [_generator(sampling.seed, sample) for sample in range(num_samples)]
    block_size = model.config.block_size
    history = torch.tensor(prompt[-block_size:]).repeat(num_samples, 1)  # (B, T)
    cache = model.new_cache(num_samples)
    unread = history
    with model.evaluating():
        for _ in range(max_new_tokens):
            if cache.length == block_size and not model.slides:
                cache = model.new_cache(num_samples)
                unread = history[:, -max(1, block_size // 2) :]
            logits = _next_logits(model, unread, cache)
            unread = sample(logits, sampling, generators)[:, None]  # (B, 1)
            yield unread[:, 0].tolist()
            if not model.slides:
                history = torch.cat((history[:, -block_size:], unread), dim=1)


@torch.inference_mode()
def _next_logits(model: GPT, unread: Tensor, cache: KVCache) -> Tensor:
    logits: Tensor = model(unread.to(model.head.weight.device), cache=cache)
    return logits[:, -1].cpu()  # (B, V)


def _generator(seed: int, sample: int) -> torch.Generator:
    """A stream of its own for every sample: the third of eight is the third of four."""
    return torch.Generator().manual_seed((seed * 1_000_003 + sample) % 2**63)


def sample(logits: Tensor, sampling: Sampling, generators: list[torch.Generator]) -> Tensor:
    """Draws one token per row.

    Args:
        logits: (B, V).
        sampling: how to choose.
        generators: one per row; each gives one uniform number.

    Returns:
        Token ids, (B,).
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probabilities = next_token_probabilities(logits, sampling)
    uniform = torch.stack([torch.rand(1, generator=g, dtype=torch.float64) for g in generators])
    # Inverse transform sampling: the first token whose cumulative probability passes the number.
    cumulative = probabilities.cumsum(-1)
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0]


def next_token_probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """The distribution that `sample` draws from: temperature, then top-k, then top-p; (B, V)."""
    if sampling.temperature == 0:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    # Against their maximum and in double precision no temperature, however small, overflows.
    logits = (logits - logits.amax(-1, keepdim=True)).double() / sampling.temperature
    if sampling.top_k is not None:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None:
        logits = keep_top_p(logits, sampling.top_p)
    return logits.softmax(-1)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """All but the k largest of each row become -inf (ties with the k-th stay)."""
    smallest = logits.topk(min(k, logits.size(-1))).values[:, -1:]
    return logits.masked_fill(logits < smallest, float("-inf"))


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """All but the smallest set that reaches probability p become -inf (Holtzman et al. 2020)."""
    ordered, places = logits.softmax(-1).sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered  # probability of everything likelier
    drop = torch.zeros_like(before, dtype=torch.bool).scatter_(-1, places, before >= p)
    return logits.masked_fill(drop, float("-inf"))
