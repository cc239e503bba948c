"""Which tokens a model treats as similar: its embeddings in two dimensions, and neighbors."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt_cli.errors import ConfigError
from minigpt_cli.inspection.tokens import token_text
from minigpt_cli.runs.checkpoint import Checkpoint
from minigpt_cli.tokenizer.base import Tokenizer

Kind = Literal[
    "vowel", "consonant", "capital", "letters", "word start", "digit", "punctuation",
    "white space", "other",
]  # fmt: skip
"""What a token consists of: with `char`, vowels, consonants and capitals; otherwise letters, with
or without the space that starts a word."""

NAMED = 120
"""The most tokens that a picture names and whose neighbors are listed."""
NEIGHBORS = 5


@dataclass(frozen=True)
class Neighbor:
    """Another token, and its cosine similarity."""

    token: str
    cosine: float


@dataclass(frozen=True)
class TokenPoint:
    """A token's place on the map."""

    id: int
    token: str
    kind: Kind
    x: float
    y: float
    neighbors: tuple[Neighbor, ...]
    """Nearest first; empty for a token that is not named."""


@dataclass(frozen=True)
class Embeddings:
    """All tokens of a model, on a map."""

    points: tuple[TokenPoint, ...]
    """In the order of their ids."""
    explained: tuple[float, float]
    """Share of the total variance that each of the two dimensions explains."""

    @property
    def named(self) -> tuple[TokenPoint, ...]:
        """The points that are named: all of them, or the first."""
        return tuple(point for point in self.points if point.neighbors)


def project_embeddings(checkpoint: Checkpoint) -> Embeddings:
    """Projects the token embeddings onto their first two principal components.

    Raises:
        ConfigError: the model has too few tokens or dimensions for a map.
    """
    tokenizer = checkpoint.tokenizer
    weight = checkpoint.model.token_embedding.weight.detach().float().cpu()  # (V, C)
    if min(weight.shape) < 2:
        raise ConfigError(
            f"a map of embeddings needs at least 2 tokens and 2 dimensions; this model has "
            f"{weight.size(0)} and {weight.size(1)}"
        )
    places, explained = _principal(weight)
    texts = [token_text(tokenizer, token) for token in range(len(weight))]
    nearest = _neighbors(weight, texts, _worth_naming(tokenizer))
    points = (
        TokenPoint(i, text, _kind(text, tokenizer.kind == "char"), x, y, nearest.get(i, ()))
        for i, (text, (x, y)) in enumerate(zip(texts, places.tolist(), strict=True))
    )
    return Embeddings(tuple(points), explained)


def _principal(weight: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """Coordinates, (V, 2), and the share of the variance that each component explains."""
    with torch.random.fork_rng(devices=[]):  # the method starts from random numbers
        torch.manual_seed(0)
        _, _, directions = torch.pca_lowrank(weight, q=min(64, *weight.shape), niter=8)  # (C, q)
    centered = weight - weight.mean(0)
    places = centered @ directions[:, :2]
    # The sign of a component is arbitrary: make the farthest token's coordinate positive.
    farthest = places.gather(0, places.abs().argmax(0, keepdim=True))
    places = places * torch.where(farthest < 0, -1.0, 1.0)
    total = float(centered.square().sum()) or 1.0  # all equal: nothing to explain
    x, y = (places.square().sum(0) / total).tolist()
    return places, (x, y)


def _worth_naming(tokenizer: Tokenizer) -> list[int]:
    """The first tokens; with `bpe`, the first longer than a byte: they were merged first."""
    whole = [i for i, text in enumerate(tokenizer.token_bytes) if len(text) > 1]
    chosen = whole if tokenizer.kind == "bpe" and whole else range(tokenizer.vocab_size)
    return list(chosen[:NAMED])


def _neighbors(
    weight: Tensor, texts: list[str], named: list[int]
) -> dict[int, tuple[Neighbor, ...]]:
    direction = F.normalize(weight)
    cosines = direction[named] @ direction.T  # (named, V)
    cosines[torch.arange(len(named)), named] = -torch.inf  # a token is not its own neighbor
    values, ids = cosines.topk(min(NEIGHBORS, len(texts) - 1))
    return {
        i: tuple(Neighbor(texts[j], value) for j, value in zip(near, similarity, strict=True))
        for i, near, similarity in zip(named, ids.tolist(), values.tolist(), strict=True)
    }


def _kind(text: str, single: bool) -> Kind:
    if text.isspace():
        return "white space"
    core = text.strip()
    if core.isdecimal():  # 三 is a word
        return "digit"
    if not any(char.isalnum() for char in core):
        return "punctuation" if core.isprintable() else "other"
    if not all(char.isalnum() or char in "'’" for char in core):
        return "other"
    if not single:
        return "letters" if core == text else "word start"
    if text.isupper():
        return "capital"
    if text.islower():
        return "vowel" if text in "aeiouàáâäèéêëìíîïòóôöùúûüåæøœ" else "consonant"
    return "other"
