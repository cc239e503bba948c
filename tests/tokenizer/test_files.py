"""Tokenizers from disk: GPT-2's files and any byte-level `tokenizer.json`."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import ByteLevelBPETokenizer, models

from minigpt_cli.errors import TokenizerError
from minigpt_cli.tokenizer.base import Tokenizer
from minigpt_cli.tokenizer.factory import tokenizer_from_json, train_tokenizer
from minigpt_cli.tokenizer.files import read_tokenizer
from tests.helpers.exports import HOSTILE

TEXT = "The old heron counts three green lanterns, and so do I: one, two, three.\n" * 5


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A tokenizer of GPT-2's kind in both forms, and the library's own."""
    folder = tmp_path_factory.mktemp("gpt2")
    theirs = ByteLevelBPETokenizer()
    theirs.train_from_iterator(
        [TEXT], vocab_size=400, special_tokens=["<|endoftext|>"], show_progress=False
    )
    theirs.save_model(str(folder))
    theirs.save(str(folder / "tokenizer.json"))
    return folder, theirs


@pytest.fixture
def folder(trained: tuple[Path, Any], tmp_path: Path) -> Path:
    shutil.copytree(trained[0], tmp_path / "copy")
    return tmp_path / "copy"


def check(tokenizer: Tokenizer, theirs: Any, end: int) -> None:
    """Any text is cut as the library cuts it, but for the token's own name."""
    plain = HOSTILE.replace("<|endoftext|>", "<|end|>")
    for text in (TEXT, plain, ""):
        assert tokenizer.encode(text) == theirs.encode(text).ids
    assert tokenizer.end_of_text == end
    assert tokenizer.start_ids == [end]
    assert end not in tokenizer.encode(HOSTILE)
    assert tokenizer.decode(tokenizer.encode(HOSTILE)) == HOSTILE
    again = tokenizer_from_json(tokenizer.to_json())
    assert again.to_json() == tokenizer.to_json()
    assert again.end_of_text == end


@pytest.mark.parametrize("name", ["", "tokenizer.json"])
def test_a_tokenizer_json_is_read(trained: tuple[Path, Any], name: str) -> None:
    check(read_tokenizer(trained[0] / name), trained[1], end=0)


@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
def test_gpt2s_own_files_are_read(
    trained: tuple[Path, Any], folder: Path, names: tuple[str, str]
) -> None:
    (folder / "tokenizer.json").unlink()
    for old, new in zip(("vocab.json", "merges.txt"), names, strict=True):
        (folder / old).rename(folder / new)
    for path in (folder, folder / names[0]):
        check(read_tokenizer(path), trained[1], end=0)


def test_a_tokenizer_without_the_token_is_given_one(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    vocabulary = json.loads((folder / "vocab.json").read_text())
    del vocabulary["<|endoftext|>"]
    vocabulary = {token: id_ - 1 for token, id_ in vocabulary.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = read_tokenizer(folder)
    assert tokenizer.end_of_text == len(vocabulary)
    assert tokenizer.end_of_text not in tokenizer.encode(HOSTILE)
    assert tokenizer_from_json(tokenizer.to_json()).end_of_text == len(vocabulary)


@pytest.mark.parametrize("said", ["</s>", {"content": "</s>", "lstrip": False}])
def test_the_end_of_a_text_is_called_as_the_configuration_says(folder: Path, said: Any) -> None:
    inner = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    inner.add_special_tokens(["<s>", "</s>"])
    inner.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": said}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = read_tokenizer(folder)
    assert tokenizer.end_of_text == inner.token_to_id("</s>")
    assert tokenizer.start_ids == [inner.token_to_id("<s>")]


def test_minigpts_own_file_is_read(tmp_path: Path) -> None:
    tokenizer = train_tokenizer("char", [TEXT])
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json())
    assert read_tokenizer(tmp_path).to_json() == tokenizer.to_json()


def test_what_is_not_a_tokenizer_is_said(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    merges = (folder / "merges.txt").read_text()
    vocabulary = json.loads((folder / "vocab.json").read_text())
    tables = {
        "has ids above the vocabulary": vocabulary | {"Ġheron": 10**9},
        "not a tokenizer": {"a": "b"},
        "not a tokenizer (": [],
    }
    for problem, table in tables.items():
        (folder / "vocab.json").write_text(json.dumps(table))
        with pytest.raises(TokenizerError) as caught:
            read_tokenizer(folder)
        assert problem in str(caught.value)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    for text in (merges + "x yz\n", merges + "one two three\n"):
        (folder / "merges.txt").write_text(text)
        with pytest.raises(TokenizerError, match="not a tokenizer"):
            read_tokenizer(folder)
    (folder / "merges.txt").unlink()
    with pytest.raises(TokenizerError, match=r"no tokenizer; it needs tokenizer\.json, or vocab"):
        read_tokenizer(folder)
    with pytest.raises(TokenizerError, match=r"gone\.json: no such file"):
        read_tokenizer(folder / "gone.json")
    tokenizers.Tokenizer(models.WordLevel({"a": 0}, "a")).save(str(folder / "words.json"))
    with pytest.raises(TokenizerError, match="not a byte-level BPE"):
        read_tokenizer(folder / "words.json")
