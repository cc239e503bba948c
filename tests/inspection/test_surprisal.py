"""The bits of a text, token by token and passage by passage, against a score of the whole."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt_cli.config.schema import ModernConfig
from minigpt_cli.errors import CorpusError
from minigpt_cli.evaluation import evaluate, predict_tokens
from minigpt_cli.inspection.surprisal import Scored, Surprisal, surprisal
from minigpt_cli.runs.checkpoint import load_checkpoint
from minigpt_cli.tokenizer.base import Tokenizer
from minigpt_cli.tokenizer.bpe import BPETokenizer
from minigpt_cli.tokenizer.byte import ByteTokenizer
from minigpt_cli.tokenizer.char import CharTokenizer
from minigpt_cli.tokenizer.word import WordTokenizer
from tests.helpers.dense_gpt import random_gpt

CONFIG = ModernConfig(n_layer=1, n_head=2, n_embd=16, block_size=8)
TEXT = (
    "The heron waits. 鹭在等待，水也在等待。\r\n\r\n"
    "  Naïve boats go by; nobody counts them! Who would?\n\n\n"
    "End of the day: the lamps, the tide, the long road home … and so on, and so on\t🛶\n"
) * 3
TOKENIZERS = {
    "char": CharTokenizer(TEXT),
    "byte": ByteTokenizer(),
    "bpe": BPETokenizer.train([TEXT], 300),
    "word": WordTokenizer.train([TEXT]),
    "few words": WordTokenizer.train([TEXT], 8),
}
each_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())


def of(text: str, tokenizer: Tokenizer, **options: Any) -> Surprisal:
    return surprisal(random_gpt(CONFIG, tokenizer.vocab_size), tokenizer, text, **options)


def joined(parts: tuple[Scored, ...]) -> str:
    return "".join(part.text for part in parts)


@each_tokenizer
def test_total_matches_evaluate(tokenizer: Tokenizer) -> None:
    model = random_gpt(CONFIG, tokenizer.vocab_size)
    whole = evaluate(model, tokenizer, tokenizer.encode_array(TEXT))
    found = surprisal(model, tokenizer, TEXT, context=1)
    assert found.tokens == whole.tokens
    assert found.unknown_tokens == whole.unknown_tokens
    assert found.bits == pytest.approx(whole.loss * whole.tokens / math.log(2), rel=1e-5)
    assert found.bits_per_byte == pytest.approx(whole.bits_per_byte, rel=1e-5)


@each_tokenizer
def test_each_token_has_half_a_window_before_it(tokenizer: Tokenizer) -> None:
    model, ids = random_gpt(CONFIG, tokenizer.vocab_size), tokenizer.encode_array(TEXT)
    found = surprisal(model, tokenizer, TEXT)
    nats = torch.cat([part.nats for part in predict_tokens(model, ids, context=4)])
    assert found.context == 4
    assert found.bits == pytest.approx(nats.double().sum().item() / math.log(2))


@each_tokenizer
def test_parts_are_the_text_and_their_bits_the_total(tokenizer: Tokenizer) -> None:
    found = of(TEXT, tokenizer)
    assert joined(found.beginning) == TEXT  # <unk> too stands for what it was read from
    assert found.beginning[0].bits is None
    assert sum(part.bits or 0 for part in found.beginning) == pytest.approx(found.bits, rel=1e-5)


@each_tokenizer
def test_passages_are_the_text_cut_into_readable_pieces(tokenizer: Tokenizer) -> None:
    found = of(TEXT, tokenizer, hardest=1000)
    assert len(found.hardest) == found.passages > 3
    costs = [passage.bits_per_byte for passage in found.hardest]
    assert costs == sorted(costs, reverse=True)
    in_order = sorted(found.hardest, key=lambda passage: passage.line)
    assert "".join(joined(passage.parts) for passage in in_order) == TEXT
    for passage in found.hardest:
        assert 60 <= len(joined(passage.parts).encode()) <= 240 + 60
        assert passage.hardest.bits == max(part.bits or 0 for part in passage.parts)
    for passage in in_order:
        first = joined(passage.parts).split()[0]
        assert first in TEXT.splitlines()[passage.line - 1].split()


def test_cost_of_a_passage_is_its_bits_over_its_bytes() -> None:
    for passage in of(TEXT, TOKENIZERS["char"], hardest=1000).hardest:
        counted = [part for part in passage.parts if part.bits is not None]
        bits = sum(part.bits or 0 for part in counted)
        size = sum(len(part.text.encode()) for part in counted)
        assert passage.bits_per_byte == pytest.approx(bits / size, rel=1e-5)


def test_unknown_words_add_bits_and_no_bytes() -> None:
    tokenizer = TOKENIZERS["few words"]
    (passage,) = of("the zebra and zebra, the end", tokenizer).hardest
    ids = tokenizer.encode("the zebra and zebra, the end")
    size = sum(len(tokenizer.token_bytes[i]) for i in ids[1:] if i)
    assert passage.bits_per_byte == pytest.approx(sum(p.bits or 0 for p in passage.parts) / size)


def test_tokens_within_a_character_are_one_part() -> None:
    model = random_gpt(CONFIG, 256)
    found = surprisal(model, ByteTokenizer(), "a鹭b")
    (predicted,) = predict_tokens(model, np.frombuffer("a鹭b".encode(), np.uint8).astype(np.uint16))
    assert [part.text for part in found.beginning] == ["a", "鹭", "b"]
    bits = predicted.nats.double() / math.log(2)
    assert found.beginning[1].bits == pytest.approx(bits[:3].sum().item(), rel=1e-5)


def test_unusual_line_is_the_hardest_passage(trained_home: Path, story: str) -> None:
    loaded = load_checkpoint(trained_home / "runs" / "tiny" / "checkpoint.safetensors")
    lines = story.splitlines()
    lines.insert(41, "ATM" * 30)  # letters that only begin lines
    text = "\n".join(lines)
    found = surprisal(loaded.model, loaded.tokenizer, text)
    assert "ATMATM" in joined(found.hardest[0].parts)
    assert abs(found.hardest[0].line - 42) <= 1
    assert found.hardest[0].bits_per_byte > 1.2 * found.bits_per_byte


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("word " * 100, " "),
        ("她数着船。" * 60, "。"),
        ("She counts the boats. " * 20, "."),
        ("一" * 300, "一"),
        ("She counts the boats.\n\n" * 20, "\n"),
    ],
)
def test_passages_end_where_reading_would_pause(text: str, ends: str) -> None:
    found = of(text, ByteTokenizer(), hardest=1000)
    texts = [joined(passage.parts) for passage in found.hardest]
    assert len(texts) > 1
    assert sum(passage.endswith(ends) for passage in texts) >= len(texts) - 1


@settings(max_examples=50)
@given(st.text(min_size=2, max_size=700))
def test_no_text_is_lost_between_passages(text: str) -> None:
    tokenizer = ByteTokenizer()
    if len(text.encode("utf-8", "replace")) < 2:
        return
    found = of(text, tokenizer, hardest=1000)
    known = text.encode("utf-8", "replace").decode()
    assert joined(found.beginning) == known
    assert sorted("".join(joined(p.parts) for p in found.hardest)) == sorted(known)
    assert all(1 <= p.line <= text.count("\n") + 1 for p in found.hardest)


def test_only_the_beginning_of_a_long_text_is_kept() -> None:
    found = of(TEXT * 30, ByteTokenizer(), hardest=7, beginning=1001)
    assert len(found.hardest) == 7
    assert joined(found.beginning) == (TEXT * 30)[:1001]
    assert found.characters == len(TEXT) * 30
    assert found.passages > 100


def test_progress_is_told_in_bytes_up_to_the_end() -> None:
    told: list[tuple[int, int]] = []
    model = random_gpt(CONFIG, 256)

    def progress(stage: str, done: int, total: int) -> None:
        told.append((done, total))

    surprisal(model, ByteTokenizer(), TEXT * 50, progress=progress)
    assert all(before[0] < after[0] for before, after in pairwise(told))
    assert told[-1] == (len((TEXT * 50).encode()),) * 2


@pytest.mark.parametrize("text", ["", "a"])
def test_text_that_leaves_nothing_to_predict_is_refused(text: str) -> None:
    with pytest.raises(CorpusError, match="needs at least 2"):
        of(text, ByteTokenizer())


@pytest.mark.parametrize(
    ("bits", "level"), [(None, 0), (0.0, 0), (0.99, 0), (1.0, 1), (2.0, 2), (7.9, 3), (99.0, 4)]
)
def test_levels_double(bits: float | None, level: int) -> None:
    assert Scored("x", bits).level == level
