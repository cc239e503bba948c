"""Which tokens a model treats as similar: its embeddings in two dimensions, and neighbors."""

import unicodedata
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt_cli.errors import ConfigError, NonFiniteError
from minigpt_cli.generation.sampling import Sampling
from minigpt_cli.generation.tokens import GenerationRequest, generate_tokens
from minigpt_cli.inspection.tokens import token_text
from minigpt_cli.language import _
from minigpt_cli.model.gpt import GPT
from minigpt_cli.runs.checkpoint import Checkpoint
from minigpt_cli.tokenizer.base import Tokenizer

Kind = Literal[
    "vowel", "consonant", "capital", "letters", "word start", "digit", "punctuation",
    "white space", "function word", "ideograph", "other",
]  # fmt: skip
"""What a token consists of: with `char`, vowels, consonants and capitals, or Chinese function words
and other ideographs; otherwise letters, with or without the space that starts a word."""

NAMED = 120
"""The most tokens that a picture names and whose neighbors are listed."""
LISTED = 40
"""The most tokens that a table lists."""
NEIGHBORS = 5
_WRITTEN, _TEXTS = 128, 16
"""Tokens of each text, and texts, from which frequencies are estimated."""
_FUNCTION_WORDS = frozenset(
    "的地得了着过们吗呢吧啊呀嘛么之乎者也矣焉哉兮而以于於其所乃且则與与和或及但是不无無未非莫勿没沒弗毋"
    "在为為被把从從对對向到就都还還又再很更最太也我你他她它吾余汝尔爾彼此这這那哪谁誰何孰有个個因故若如虽雖然"
)
_NUMERALS = frozenset("〇零一二三四五六七八九十百千万萬亿億两兩")


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
    frequent: tuple[int, ...] = ()
    """The ids of the tokens that are named, the most frequent first, as far as that is known."""

    @property
    def named(self) -> tuple[TokenPoint, ...]:
        """The points that are named: all of them, or the most frequent."""
        return tuple(point for point in self.points if point.neighbors)


def project_embeddings(checkpoint: Checkpoint) -> Embeddings:
    """Projects the token embeddings onto their first two principal components.

    Raises:
        ConfigError: the model has too few tokens or dimensions for a map.
        NonFiniteError: the embeddings are too large to compare.
    """
    tokenizer = checkpoint.tokenizer
    weight = checkpoint.model.token_embedding.weight.detach().float().cpu()  # (V, C)
    if min(weight.shape) < 2:
        raise ConfigError(
            _(
                "a map of embeddings needs at least 2 tokens and 2 dimensions; this model "
                "has {tokens} and {width}"
            ).format(tokens=weight.size(0), width=weight.size(1))
        )
    if not weight.square().sum().isfinite():
        raise NonFiniteError(_("distances between the embeddings"))
    places, explained = _principal(weight)
    texts = [token_text(tokenizer, token) for token in range(len(weight))]
    frequent = _worth_naming(checkpoint)
    nearest = _neighbors(weight, texts, sorted(frequent))
    points = (
        TokenPoint(i, text, _kind(text, tokenizer.kind == "char"), x, y, nearest.get(i, ()))
        for i, (text, (x, y)) in enumerate(zip(texts, places.tolist(), strict=True))
    )
    return Embeddings(tuple(points), explained, tuple(frequent))


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


def _worth_naming(checkpoint: Checkpoint) -> list[int]:
    """The tokens to name, the most frequent first.

    With `word` the first, which are the most frequent; with `bpe` the first longer than a byte,
    which were merged first; with `char` those that the model writes most often.
    """
    tokenizer = checkpoint.tokenizer
    if tokenizer.kind == "char" and tokenizer.vocab_size > LISTED:
        most = min(NAMED, tokenizer.vocab_size)
        return _frequencies(checkpoint.model, tokenizer).topk(most).indices.tolist()
    whole = [i for i, text in enumerate(tokenizer.token_bytes) if len(text) > 1]
    chosen = whole if tokenizer.kind == "bpe" and whole else range(tokenizer.vocab_size)
    return list(chosen[:NAMED])


def _frequencies(model: GPT, tokenizer: Tokenizer) -> Tensor:
    """How often the model writes each token, (V,): the mean of its probabilities as it writes."""
    request = GenerationRequest(
        [tokenizer.start_ids], _WRITTEN, Sampling(temperature=1.0), num_samples=_TEXTS
    )
    found = torch.zeros(tokenizer.vocab_size)
    for step in generate_tokens(model, request):
        found += step.logits.float().softmax(-1).sum(0)
    return found


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
    if text in _NUMERALS:
        return "digit"
    if text in _FUNCTION_WORDS:
        return "function word"
    if unicodedata.name(text, "").startswith("CJK"):
        return "ideograph"
    if text.islower():
        return "vowel" if text in "aeiouàáâäèéêëìíîïòóôöùúûüåæøœ" else "consonant"
    return "other"
