"""Checkpoints: whole, self-sufficient, verified, and never half-written."""

import errno
import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from minigpt_cli.config.schema import ClassicConfig, DataConfig, ModelConfig, ModernConfig
from minigpt_cli.errors import CheckpointError, MinigptError
from minigpt_cli.model.gpt import GPT
from minigpt_cli.runs.checkpoint import (
    checkpoint_file,
    load_checkpoint,
    model_tensors,
    read_tensors,
    write_tensors,
)
from minigpt_cli.runs.checkpoint_header import FORMAT_VERSION, CheckpointMetadata
from minigpt_cli.tokenizer.base import Tokenizer
from minigpt_cli.tokenizer.factory import train_tokenizer

SIZES: dict[str, Any] = {"n_layer": 2, "n_head": 2, "n_embd": 8, "block_size": 8}
MODELS: list[ClassicConfig | ModernConfig] = [
    ClassicConfig(**SIZES, dropout=0.1),
    ClassicConfig(**SIZES, bias=False, tie_embeddings=True),
    ModernConfig(**SIZES, n_kv_head=1),
    ModernConfig(**SIZES, tie_embeddings=True),
]


def described(model: GPT, tokenizer: Tokenizer, **changes: Any) -> CheckpointMetadata:
    known: dict[str, Any] = {
        "version": "1.2.3",
        "model": model.config,
        "vocab_size": tokenizer.vocab_size,
        "tokenizer": tokenizer.to_json(),
        "data": DataConfig(corpus=("a.txt", "b.txt"), tokenizer=tokenizer.kind),
        "corpus": "a+b",
        "fingerprint": "0123456789abcdef",
        "step": 42,
        "train_loss": 1.5,
        "val_loss": 1.75,
        "bits_per_byte": 2.5,
    }
    return CheckpointMetadata(**{**known, **changes})


def random_model(config: ModelConfig, vocab_size: int, seed: int = 0) -> GPT:
    torch.manual_seed(seed)
    model = GPT(config, vocab_size)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_()
    return model.eval()


@pytest.fixture
def saved(tmp_path: Path, story: str) -> tuple[Path, GPT, CheckpointMetadata]:
    tokenizer = train_tokenizer("char", [story])
    model = random_model(MODELS[2], tokenizer.vocab_size)
    facts = described(model, tokenizer)
    path = tmp_path / "checkpoint.safetensors"
    checkpoint_file(path, model, facts).write()
    return path, model, facts


def test_loading_draws_no_random_number(saved: tuple[Path, GPT, CheckpointMetadata]) -> None:
    state = torch.get_rng_state()
    load_checkpoint(saved[0])
    assert torch.equal(torch.get_rng_state(), state)


@contextmanager
def small_disk(most: int) -> Iterator[None]:
    """No file may grow beyond `most` bytes; writing more fails as on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("config", MODELS)
@pytest.mark.parametrize("kind", ["char", "word", "byte", "bpe"])
def test_one_file_brings_back_model_tokenizer_and_facts(
    tmp_path: Path, story: str, config: ModelConfig, kind: Any
) -> None:
    tokenizer = train_tokenizer(kind, [story], 300 if kind == "bpe" else None)
    model = random_model(config, tokenizer.vocab_size)
    facts = described(model, tokenizer)
    checkpoint_file(tmp_path / "checkpoint.safetensors", model, facts).write()
    (tmp_path / "checkpoint.safetensors").rename(tmp_path / "moved")

    found = load_checkpoint(tmp_path / "moved")
    assert found.metadata == facts
    assert not found.model.training
    idx = torch.tensor([tokenizer.encode(story)[:8]])
    assert torch.equal(found.model(idx), model(idx))
    assert found.tokenizer.kind == kind
    assert found.tokenizer.encode(story) == tokenizer.encode(story)
    assert found.tokenizer.token_bytes == tokenizer.token_bytes


def test_facts_that_are_not_known_yet_stay_unknown(tmp_path: Path, story: str) -> None:
    tokenizer = train_tokenizer("char", [story])
    model = random_model(MODELS[0], tokenizer.vocab_size)
    facts = described(model, tokenizer, train_loss=None, val_loss=None, bits_per_byte=None)
    checkpoint_file(tmp_path / "c", model, facts).write()
    assert load_checkpoint(tmp_path / "c").metadata == facts


def test_tied_head_is_stored_once_and_tied_again(tmp_path: Path, story: str) -> None:
    tokenizer = train_tokenizer("char", [story])
    model = random_model(MODELS[3], tokenizer.vocab_size)
    checkpoint_file(tmp_path / "c", model, described(model, tokenizer)).write()
    assert "head.weight" not in load_file(tmp_path / "c")
    found = load_checkpoint(tmp_path / "c").model
    assert found.head.weight is found.token_embedding.weight
    assert torch.equal(found.head.weight, model.token_embedding.weight)


def test_any_safetensors_reader_finds_the_weights(
    saved: tuple[Path, GPT, CheckpointMetadata],
) -> None:
    path, model, _ = saved
    tensors = load_file(path)  # the library itself, which reads no pickle
    wanted = model_tensors(model)
    assert tensors.keys() == wanted.keys()
    assert all(torch.equal(tensors[name], wanted[name]) for name in wanted)


def test_flipped_bit_anywhere_is_noticed(saved: tuple[Path, GPT, CheckpointMetadata]) -> None:
    path, _, _ = saved
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    chance = random.Random(0)
    places = [*range(8), *chance.sample(range(8, header), 150)]
    places += [header, len(whole) - 1, *chance.sample(range(header, len(whole)), 50)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(MinigptError):
            load_checkpoint(path)
    path.write_bytes(whole)
    load_checkpoint(path)


def test_truncated_or_lengthened_file_is_refused(
    saved: tuple[Path, GPT, CheckpointMetadata],
) -> None:
    path, _, _ = saved
    whole = path.read_bytes()
    lengths = {0, 1, 7, 8, 9, len(whole) // 2, len(whole) - 1}
    for content in (*(whole[:length] for length in lengths), whole + b"\0"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="safetensors file"):
            load_checkpoint(path)


def test_exchanged_weights_of_the_same_shape_are_noticed(
    saved: tuple[Path, GPT, CheckpointMetadata],
) -> None:
    path, _, _ = saved
    whole = path.read_bytes()
    one, other = b'"blocks.0.norm1.weight"', b'"blocks.1.norm1.weight"'
    assert whole.count(one) == whole.count(other) == 1
    third = b'"exchanged with blocks.1"'
    path.write_bytes(whole.replace(one, third).replace(other, one).replace(third, other))
    with pytest.raises(CheckpointError, match="damaged: its content does not match its digest"):
        load_checkpoint(path)


def test_foreign_safetensors_file_is_refused_with_what_can_be_done(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match=r"not a minigpt checkpoint.*inspect can list"):
        load_checkpoint(tmp_path / "foreign.safetensors")


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"PK\x03\x04" + b"\0" * 100])
def test_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_checkpoint(tmp_path / "model.pt")


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path / "none")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(tmp_path)


def rewritten(path: Path, **changes: Any) -> None:
    """Changes the description and signs the file anew, as another version might have."""
    tensors, metadata = read_tensors(path)
    facts = {**json.loads(metadata["minigpt"]), **changes}
    write_tensors(path, tensors, {**metadata, "minigpt": json.dumps(facts)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": FORMAT_VERSION + 1}, r"newer than this minigpt reads.*upgrade"),
        ({"format_version": "one"}, "metadata is damaged"),
        ({"model": {"family": "classic", "n_head": 5}}, "metadata is damaged"),
        ({"step": "many"}, "metadata is damaged"),
        ({"train": {"seed": -1}}, r"metadata is damaged \(train\.seed: "),
        ({"train": {"lr": 1}}, r"metadata is damaged \(train\.lr: "),
        ({"optimizer": []}, r"metadata is damaged \(optimizer: "),
        ({"vocab_size": 3}, r"its tokenizer has \d+ tokens but its model 3"),
        ({"model": {**ModernConfig(**SIZES).model_dump()}}, r"blocks.0.attention.qkv.weight is"),
        (
            {"model": {**MODELS[2].model_dump(), "n_layer": 3}},
            r"the tensor blocks\.2\..* is missing",
        ),
        (
            {"model": {**MODELS[2].model_dump(), "n_layer": 1}},
            r"the tensor blocks\.1\..* is unexpected",
        ),
        ({"tokenizer": "{}"}, "tokenizer cannot be read"),
    ],
)
def test_description_that_does_not_fit_is_refused(
    saved: tuple[Path, GPT, CheckpointMetadata], changes: dict[str, Any], message: str
) -> None:
    path, _, _ = saved
    rewritten(path, **changes)
    with pytest.raises(MinigptError, match=message):
        load_checkpoint(path)


def test_full_disk_leaves_the_last_checkpoint_and_no_litter(
    saved: tuple[Path, GPT, CheckpointMetadata],
) -> None:
    path, model, facts = saved
    before = path.read_bytes()
    other = random_model(MODELS[2], model.vocab_size, seed=1)
    with (
        small_disk(len(before) // 2),
        pytest.raises(CheckpointError, match=r"cannot be written .*free some space"),
    ):
        checkpoint_file(path, other, facts).write()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    checkpoint_file(path, other, facts).write()
    assert torch.equal(load_checkpoint(path).model.head.weight, other.head.weight)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failure_before_the_rename_leaves_the_last_checkpoint(
    saved: tuple[Path, GPT, CheckpointMetadata], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path, model, facts = saved
    before = path.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os if step == "fsync" else Path, step, refuse)
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoint_file(path, model, facts).write()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_folder_that_cannot_be_made_is_explained(
    saved: tuple[Path, GPT, CheckpointMetadata],
) -> None:
    path, model, facts = saved
    inside = path / "checkpoint.safetensors"  # a file is in the folder's place
    with pytest.raises(CheckpointError, match="cannot be written"):
        checkpoint_file(inside, model, facts).write()


def test_every_kind_of_tensor_survives(tmp_path: Path) -> None:
    tensors = {
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "bf16": torch.randn(3, 2).bfloat16(),
        "int": torch.arange(5),
        "transposed": torch.randn(4, 3).T,
    }
    write_tensors(tmp_path / "t", tensors, {"中": "文"})
    found, metadata = read_tensors(tmp_path / "t")
    assert metadata == {"中": "文"}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
