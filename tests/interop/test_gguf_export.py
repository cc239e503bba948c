"""What llama.cpp makes of an exported file is what minigpt makes of the checkpoint."""

from functools import cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unicodedata import category

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt_cli.interop.gguf_export import GGUFDtype, caveats, export_gguf
from minigpt_cli.model.layers import RMSNorm
from minigpt_cli.runs.checkpoint import Checkpoint
from minigpt_cli.tokenizer.base import Tokenizer
from tests.helpers.exports import (
    CONFIGS,
    HOSTILE,
    greedy,
    known,
    random_checkpoint,
    texts,
    tokenizer_of,
)
from tests.helpers.llama import Llama

pytest.importorskip("gguf", reason="needs gguf: pip install 'minigpt-cli[interop]'")
pytest.importorskip("xllamacpp", reason="needs llama.cpp: pip install xllamacpp")
KINDS = ("char", "byte", "bpe")
VARIANTS = [name for name in CONFIGS if name not in ("modern", "classic")]
PROMPT = "The old heron"


def random_model(name: str, kind: str) -> Checkpoint:
    """A random model that writes whole characters: of halves llama.cpp tells no probabilities."""
    checkpoint = random_checkpoint(CONFIGS[name], tokenizer_of(kind))
    if kind != "char":
        halves = [i for i, t in enumerate(checkpoint.tokenizer.token_bytes) if not t.isascii()]
        with torch.no_grad():
            checkpoint.model.head.weight[halves] = 0.0
    return checkpoint


def difference(checkpoint: Checkpoint, answer: dict[str, Any], ids: list[int]) -> float:
    """The largest difference of log-probabilities, over the whole vocabulary and all steps."""
    new, told = answer["tokens"], answer["completion_probabilities"]
    ours = checkpoint.model(torch.tensor([ids + new]))[0, len(ids) - 1 : -1].log_softmax(-1)
    theirs = torch.empty_like(ours)
    for row, one in zip(theirs, told, strict=True):
        for token in one["top_logprobs"]:
            if token["id"] < len(row):  # `char` has one more there
                row[token["id"]] = token["logprob"]
    return float((ours - theirs.log_softmax(-1)).abs().max())


@pytest.mark.parametrize(
    ("name", "kind"),
    [*product(("modern", "classic"), KINDS), *((name, "byte") for name in VARIANTS)],
)
@torch.inference_mode()
def test_llama_cpp_computes_the_same_probabilities_and_writes_the_same_text(
    name: str, kind: str, tmp_path: Path
) -> None:
    checkpoint = random_model(name, kind)
    export_gguf(checkpoint, tmp_path / "model.gguf")

    llama = Llama(tmp_path / "model.gguf", 256)
    ids = checkpoint.tokenizer.encode(PROMPT)
    assert llama.encode(PROMPT) == ids
    answer = llama.greedy(PROMPT, 200, probabilities=checkpoint.model.vocab_size + 1)
    if any("GELU" in caveat for caveat in caveats(checkpoint)):
        assert difference(checkpoint, answer, ids) < 1e-2
        return
    assert difference(checkpoint, answer, ids) < (5e-4 if "relu" in name else 1e-4)
    assert answer["tokens"] == greedy(checkpoint, ids, 200)
    assert len(set(answer["tokens"])) > 2  # a text, and not one token again and again


@pytest.mark.parametrize(("dtype", "most"), [("bf16", 0.3), ("fp16", 0.02), ("q8_0", 0.6)])
@pytest.mark.parametrize("name", ["modern-gqa-tied", "classic-relu-no-qkv-bias"])
@torch.inference_mode()
def test_rounded_weights_are_close(
    name: str, dtype: GGUFDtype, most: float, tmp_path: Path
) -> None:
    checkpoint = random_model(name, "byte")
    export_gguf(checkpoint, tmp_path / "small.gguf", dtype)
    export_gguf(checkpoint, tmp_path / "large.gguf")
    llama = Llama(tmp_path / "small.gguf", 256)
    answer = llama.greedy(PROMPT, 100, probabilities=256)
    found = difference(checkpoint, answer, checkpoint.tokenizer.encode(PROMPT))
    assert 1e-6 < found < most
    sizes = [(tmp_path / f"{name}.gguf").stat().st_size for name in ("small", "large")]
    assert sizes[0] < 0.7 * sizes[1]


@torch.inference_mode()
def test_rows_that_no_block_of_32_fits_are_fp16_in_q8_0(tmp_path: Path) -> None:
    checkpoint = random_model("modern-head-of-6", "byte")
    export_gguf(checkpoint, tmp_path / "model.gguf", "q8_0")
    answer = Llama(tmp_path / "model.gguf", 256).greedy(PROMPT, 50, probabilities=256)
    assert difference(checkpoint, answer, checkpoint.tokenizer.encode(PROMPT)) < 0.6


@cache
def both(kind: str) -> tuple[Any, Llama]:
    """Our tokenizer, and llama.cpp with it."""
    checkpoint = random_model("modern", kind)
    with TemporaryDirectory() as folder:
        export_gguf(checkpoint, Path(folder, "model.gguf"))
        return checkpoint.tokenizer, Llama(Path(folder, "model.gguf"), 256)


def assigned(text: str) -> bool:
    """Whether llama.cpp's tables of Unicode know every character."""
    return all(category(char) != "Cn" for char in text)


def markless(text: str) -> bool:
    """Whether llama.cpp splits words as `bpe` does."""
    return assigned(text) and not any(category(c)[0] == "M" or c in "\u200c\u200d" for c in text)


STRATEGIES = {
    "char": known, "byte": texts, "bpe": texts.filter(markless), "bpe-1": texts.filter(assigned),
}  # fmt: skip


@pytest.mark.parametrize("kind", STRATEGIES)
@settings(max_examples=400)
@given(data=st.data())
def test_any_text_is_cut_and_joined_alike(kind: str, data: st.DataObject) -> None:
    ours, llama = both(kind)
    text = data.draw(STRATEGIES[kind])
    ids = ours.encode(text)
    assert llama.encode(text) == ids
    assert llama.decode(ids) == text


@pytest.mark.parametrize("kind", KINDS)
def test_no_token_ends_a_text(kind: str, tmp_path: Path) -> None:
    """llama.cpp would stop at token 11 by default."""
    tokenizer, _ = both(kind)
    for token in (11, tokenizer.start_ids[0]):
        checkpoint = random_model("modern", kind)
        norm = checkpoint.model.norm
        assert isinstance(norm, RMSNorm)
        with torch.no_grad():  # writes that token alone
            norm.weight.zero_()
            norm.weight[0] = 1.0
            checkpoint.model.token_embedding.weight.zero_()
            checkpoint.model.token_embedding.weight[:, 0] = 9.0
            checkpoint.model.head.weight.zero_()
            checkpoint.model.head.weight[token, 0] = 9.0
        export_gguf(checkpoint, tmp_path / f"{token}.gguf")
        answer = Llama(tmp_path / f"{token}.gguf", 64).greedy(PROMPT, 20)
        assert (answer["tokens"], answer["stop_type"]) == ([token] * 20, "limit")


def said_of_marks(tokenizer: Tokenizer) -> bool:
    checkpoint = random_checkpoint(CONFIGS["modern"], tokenizer)
    return any("combining marks" in one for one in caveats(checkpoint))


def test_words_with_marks_are_cut_otherwise_as_the_caveat_says() -> None:
    tokenizer, llama = both("bpe")
    assert llama.encode("हिन्दी") != tokenizer.encode("हिन्दी")
    assert said_of_marks(tokenizer)
    assert not said_of_marks(tokenizer_of("bpe-1"))


def test_a_vocabulary_of_ascii_words_cuts_any_text_alike(tmp_path: Path, story: str) -> None:
    tokenizer = tokenizer_of("bpe", story)
    assert not said_of_marks(tokenizer)
    export_gguf(random_checkpoint(CONFIGS["modern"], tokenizer), tmp_path / "model.gguf")
    llama = Llama(tmp_path / "model.gguf", 256)
    for text in (HOSTILE, story, "हिन्दी e\u0301t a\u200db", HOSTILE[::-1]):
        assert llama.encode(text) == tokenizer.encode(text)


def test_an_unknown_character_is_dropped_as_the_caveat_says() -> None:
    tokenizer, llama = both("char")
    assert llama.encode("The\u0416 old") == tokenizer.encode("The old")
    assert any("drops characters" in one for one in caveats(random_model("modern", "char")))
