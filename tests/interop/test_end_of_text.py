"""The end-of-text token in other programs' files, where no text forges it either."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from minigpt_cli.errors import ConfigError
from minigpt_cli.generation.sampling import Sampling
from minigpt_cli.generation.text import generate
from minigpt_cli.inspection.tokens import token_text
from minigpt_cli.interop.gguf_export import export_gguf, gguf_vocabulary
from minigpt_cli.interop.hf_export import export_hf
from minigpt_cli.interop.hf_import import read_hf
from minigpt_cli.pages.playground import playground_page
from minigpt_cli.tokenizer.base import Tokenizer
from minigpt_cli.tokenizer.factory import train_tokenizer
from tests.helpers.exports import CONFIGS, HOSTILE, random_checkpoint

KINDS = ("char", "word", "byte", "bpe")


def tokenizer_of(kind: str) -> Tokenizer:
    size = 400 if kind == "bpe" else None
    return train_tokenizer(cast(Any, kind), [HOSTILE], size, end_of_text=True)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_knows_the_token_and_never_finds_it_in_a_text(
    kind: str, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = tokenizer_of(kind)
    export_hf(random_checkpoint(CONFIGS["modern"], tokenizer), tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs.eos_token_id == tokenizer.end_of_text
    assert len(theirs) == tokenizer.vocab_size
    ids = tokenizer.encode(HOSTILE)
    assert theirs(HOSTILE).input_ids == ids
    ended = [*ids, cast(int, tokenizer.end_of_text)]
    assert theirs.decode(ended, skip_special_tokens=True) == tokenizer.decode(ended)
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == generation["bos_token_id"] == tokenizer.end_of_text


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_model_comes_back_with_its_token(kind: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(kind)
    export_hf(random_checkpoint(CONFIGS["modern"], tokenizer), tmp_path / "out")
    again = read_hf(tmp_path / "out").tokenizer
    assert again.to_json() == tokenizer.to_json()
    assert again.end_of_text == tokenizer.end_of_text


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_gguf_names_the_token(kind: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(kind)
    vocabulary = gguf_vocabulary(tokenizer)
    assert vocabulary.end == tokenizer.end_of_text
    assert len(vocabulary.tokens) == len(set(vocabulary.tokens)) == tokenizer.vocab_size
    gguf = pytest.importorskip("gguf", reason="needs gguf: pip install 'minigpt-cli[interop]'")
    export_gguf(random_checkpoint(CONFIGS["modern"], tokenizer), tmp_path / "m.gguf")
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    assert fields["tokenizer.ggml.eos_token_id"].contents() == tokenizer.end_of_text
    kinds = fields["tokenizer.ggml.token_type"].contents()
    unused = [i for i, each in enumerate(kinds) if each == gguf.TokenType.UNUSED]
    assert unused == [tokenizer.end_of_text]  # a control token would be found in prompts


def test_writing_stops_at_the_end_of_the_text() -> None:
    checkpoint = random_checkpoint(CONFIGS["modern"], tokenizer_of("byte"))
    written = set()
    for sign in (1.0, -1.0):  # with one of them, the token's logit is above all others
        with torch.no_grad():
            checkpoint.model.head.weight.zero_()
            checkpoint.model.head.weight[256] = sign
            checkpoint.model.token_embedding.weight.fill_(1.0)
        written.add("".join(generate(checkpoint, "The", 20, Sampling(temperature=0.0))))
    assert written == {"", "\0" * 20}


def test_the_token_is_shown_by_name() -> None:
    tokenizer = tokenizer_of("bpe")
    assert token_text(tokenizer, cast(int, tokenizer.end_of_text)) == "<|endoftext|>"


def test_a_page_refuses_a_vocabulary_that_its_engine_does_not_know(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(CONFIGS["modern"], tokenizer_of("byte"))
    with pytest.raises(ConfigError, match="cannot run a vocabulary with an end-of-text token"):
        playground_page(checkpoint, cast(Any, tmp_path))
