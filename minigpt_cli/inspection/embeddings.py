"""Which tokens are alike to a model: its token embeddings in two dimensions, and neighbors."""

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
"""What a token is made of: in `char` vowels, consonants, capitals; elsewhere letters, and whether
a space before them starts a word."""

NAMED = 120
"""At most so many tokens are named in a picture, and have their neighbors listed."""
NEIGHBOURS = 5


@dataclass(frozen=True)
class Neighbor:
    """Another token, and how much it points the same way."""

    token: str
    cosine: float


@dataclass(frozen=True)
class TokenPoint:
    """A token's place among all."""

    id: int
    token: str
    kind: Kind
    x: float
    y: float
    neighbors: tuple[Neighbor, ...]
    """Nearest first; none for a token that is not named."""


@dataclass(frozen=True)
class Embeddings:
    """All tokens of a model."""

    points: tuple[TokenPoint, ...]
    """In the order of their ids."""
    explained: tuple[float, float]
    """Share of the variance of all dimensions that each of the two has."""

    @property
    def named(self) -> tuple[TokenPoint, ...]:
        """Those worth naming: all of them, or the first."""
        return tuple(point for point in self.points if point.neighbors)


def project_embeddings(checkpoint: Checkpoint) -> Embeddings:
    """Projects the token embeddings on their two principal components.

    Raises:
        ConfigError: the model has too few tokens or dimensions for a map.
    """
    tokenizer = checkpoint.tokenizer
    weight = checkpoint.model.token_embedding.weight.detach().float().cpu()  # (V, C)
    if min(weight.shape) < 2:
        raise ConfigError(
            f"--embeddings: {weight.size(0)} tokens in {weight.size(1)} dimensions make no map; "
            "it needs at least 2 of each"
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
    """Places on the first two components, (V, 2), and the share of the variance each explains."""
    with torch.random.fork_rng(devices=[]):  # the method draws a random start
        torch.manual_seed(0)
        _, _, directions = torch.pca_lowrank(weight, q=min(64, *weight.shape), niter=8)  # (C, q)
    centered = weight - weight.mean(0)
    places = centered @ directions[:, :2]
    # A component has no sign of its own: here the token that is farthest out lies to the right.
    farthest = places.gather(0, places.abs().argmax(0, keepdim=True))
    places = places * torch.where(farthest < 0, -1.0, 1.0)
    total = float(centered.square().sum()) or 1.0  # all alike: nothing is explained
    x, y = (places.square().sum(0) / total).tolist()
    return places, (x, y)


def _worth_naming(tokenizer: Tokenizer) -> list[int]:
    """The first tokens, of `bpe` the first that are more than a byte: they merged first."""
    whole = [i for i, text in enumerate(tokenizer.token_bytes) if len(text) > 1]
    chosen = whole if tokenizer.kind == "bpe" and whole else range(tokenizer.vocab_size)
    return list(chosen[:NAMED])


def _neighbors(
    weight: Tensor, texts: list[str], named: list[int]
) -> dict[int, tuple[Neighbor, ...]]:
    direction = F.normalize(weight)
    cosines = direction[named] @ direction.T  # (named, V)
    cosines[torch.arange(len(named)), named] = -torch.inf  # a token is not its own neighbor
    values, ids = cosines.topk(min(NEIGHBOURS, len(texts) - 1))
    return {
        i: tuple(Neighbor(texts[j], value) for j, value in zip(near, likeness, strict=True))
        for i, near, likeness in zip(named, ids.tolist(), values.tolist(), strict=True)
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
