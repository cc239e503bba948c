"""The map of tokens, against a full singular value decomposition and cosines one by one."""

import math
from pathlib import Path

import pytest
import torch

from minigpt_cli.config.schema import ClassicConfig
from minigpt_cli.errors import ConfigError
from minigpt_cli.inspection.embeddings import NAMED, project_embeddings
from minigpt_cli.runs.checkpoint import Checkpoint, load_checkpoint
from minigpt_cli.tokenizer.base import Tokenizer
from minigpt_cli.tokenizer.bpe import BPETokenizer
from minigpt_cli.tokenizer.char import CharTokenizer
from minigpt_cli.tokenizer.word import WordTokenizer
from tests.helpers.checkpoints import checkpoint_of
from tests.helpers.dense_gpt import random_gpt


def untrained(tokenizer: Tokenizer, n_embd: int = 8) -> Checkpoint:
    config = ClassicConfig(n_layer=1, n_head=1, n_embd=n_embd, block_size=8)
    return checkpoint_of(random_gpt(config, tokenizer.vocab_size), tokenizer)


@pytest.fixture(scope="module")
def trained(trained_home: Path) -> Checkpoint:
    return load_checkpoint(trained_home / "runs" / "tiny" / "checkpoint.safetensors")


def test_coordinates_and_shares_match_the_full_decomposition(trained: Checkpoint) -> None:
    found = project_embeddings(trained)
    weight = trained.model.token_embedding.weight.detach().double()
    u, s, _ = torch.linalg.svd(weight - weight.mean(0), full_matrices=False)
    shares = s.square() / s.square().sum()
    assert found.explained == pytest.approx(shares[:2].tolist(), rel=1e-4)
    for axis, places in enumerate(zip(*((p.x, p.y) for p in found.points), strict=True)):
        expected = u[:, axis] * s[axis]
        expected *= torch.sign(expected[expected.abs().argmax()])
        assert places == pytest.approx(expected.tolist(), abs=1e-3)
        assert max(places, key=abs) > 0


def test_map_is_deterministic_and_leaves_the_random_state_alone(trained: Checkpoint) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = project_embeddings(trained)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert project_embeddings(trained) == first


def test_neighbors_are_the_nearest_by_cosine(trained: Checkpoint) -> None:
    weight = trained.model.token_embedding.weight.tolist()

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    for point in project_embeddings(trained).points:
        others = [
            (cosine(weight[point.id], row), trained.tokenizer.decode([i]))
            for i, row in enumerate(weight)
            if i != point.id
        ]
        nearest = sorted(others, reverse=True)[:5]
        assert [n.token for n in point.neighbors] == [token for _, token in nearest]
        assert [n.cosine for n in point.neighbors] == pytest.approx([c for c, _ in nearest])


def test_characters_have_their_kinds() -> None:
    found = {
        p.token: p.kind
        for p in project_embeddings(untrained(CharTokenizer("aéxß A7\n.,'你三"))).points
    }
    assert found == {
        "a": "vowel", "é": "vowel", "x": "consonant", "ß": "consonant", "A": "capital",
        "7": "digit", " ": "white space", "\n": "white space", ".": "punctuation",
        ",": "punctuation", "'": "punctuation", "你": "other", "三": "other",
    }  # fmt: skip


def test_words_have_their_kinds_and_the_first_are_named() -> None:
    words = WordTokenizer(["the", "42", "  ", "!", *(f"w{'x' * i}" for i in range(200))])
    found = project_embeddings(untrained(words))
    kinds = {p.token: p.kind for p in found.points[:6]}
    assert kinds == {
        "<unk>": "other", "the": "letters", "42": "digit", "  ": "white space",
        "!": "punctuation", "w": "letters",
    }  # fmt: skip
    assert [p.id for p in found.named] == list(range(NAMED))


def test_first_merges_of_bpe_are_named(story: str) -> None:
    tokenizer = BPETokenizer.train([story], 300)
    found = project_embeddings(untrained(tokenizer))
    assert len(found.points) == tokenizer.vocab_size
    assert [p.id for p in found.named] == list(range(256, tokenizer.vocab_size))
    assert "word start" in {p.kind for p in found.named}


def test_map_needs_two_tokens_and_two_dimensions() -> None:
    assert len(project_embeddings(untrained(CharTokenizer("ab"))).points) == 2
    with pytest.raises(ConfigError, match="2 dimensions; this model has 1 and 8"):
        project_embeddings(untrained(CharTokenizer("a")))
    with pytest.raises(ConfigError, match="this model has 2 and 1"):
        project_embeddings(untrained(CharTokenizer("ab"), n_embd=1))


def test_identical_embeddings_explain_no_variance() -> None:
    alike = untrained(CharTokenizer("abc"))
    alike.model.token_embedding.weight.data.fill_(1.0)
    assert project_embeddings(alike).explained == (0, 0)
