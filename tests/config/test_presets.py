"""The shipped presets: each one loads, builds, and repeats no default."""

import re
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from minigpt_cli.config.loading import load_run_config, read_toml, resolve
from minigpt_cli.config.presets import preset_names, preset_path, shipped_folder
from minigpt_cli.config.schema import RunConfig
from minigpt_cli.errors import ConfigError
from minigpt_cli.model.gpt import GPT

PRESETS = [
    "best", "classic", "finetune", "gpt2", "large", "lora", "medium", "nanogpt", "small",
    "speedrun", "tiny",
]  # fmt: skip
# Documented number of layers, number of heads, width, and block size.
SIZES = {
    "best": (4, 4, 192, None),
    "classic": (6, 6, 384, 256),
    "gpt2": (12, 12, 768, 1024),
    "large": (8, 8, 512, None),
    "medium": (6, 6, 384, None),
    "nanogpt": (4, 4, 128, 64),
    "small": (3, 4, 128, None),
}


def test_every_promised_preset_is_shipped() -> None:
    assert preset_names() == PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_preset_loads_and_builds(name: str) -> None:
    config = load_run_config(name)
    vocab_size = config.data.vocab_size or 65
    with torch.device("meta"):  # no weights are allocated: the largest would take seconds
        model = GPT(config.model, vocab_size)
    assert model.head.weight.shape == (vocab_size, config.model.n_embd)
    assert len(model.blocks) == config.model.n_layer


@pytest.mark.parametrize("name", PRESETS)
def test_preset_contains_only_what_differs_from_the_defaults(name: str) -> None:
    tables = read_toml(preset_path(name))
    config = resolve(tables, {}, name)
    for section, table in tables.items():
        for key in table:
            without = {**tables, section: {k: v for k, v in table.items() if k != key}}
            with suppress(ConfigError):  # the rest may require this key
                assert resolve(without, {}, name) != config, f"{section}.{key} is the default"


@pytest.mark.parametrize("name", PRESETS)
def test_preset_starts_with_a_comment_on_its_purpose(name: str) -> None:
    first = preset_path(name).read_text(encoding="utf-8").splitlines()[0]
    assert re.match(r"# \w.{20,}", first)


@pytest.mark.parametrize("name", SIZES)
def test_preset_has_the_promised_sizes(name: str) -> None:
    model = load_run_config(name).model
    n_layer, n_head, n_embd, block_size = SIZES[name]
    assert (model.n_layer, model.n_head, model.n_embd) == (n_layer, n_head, n_embd)
    assert block_size in (None, model.block_size)
    assert model.family == ("classic" if name in ("classic", "gpt2", "nanogpt") else "modern")


def test_gpt2_preset_has_124_million_parameters() -> None:
    config = load_run_config("gpt2")
    assert config.data.vocab_size == 50_257
    with torch.device("meta"):
        model = GPT(config.model, config.data.vocab_size)
    # The number for the code of the paper; the tied head counts once.
    assert sum(p.numel() for p in model.parameters()) == 124_439_808


@pytest.mark.parametrize(
    ("wrong", "offered"),
    [("smal", "small"), ("nanoGPT", "nanogpt"), ("gpt-2", "gpt2"), ("clasic", "classic")],
)
def test_similar_preset_names_are_suggested(wrong: str, offered: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown preset .*; did you mean.* {offered}"):
        preset_path(wrong)


@pytest.mark.parametrize("wrong", ["", "zzz", "中文"])
def test_all_presets_are_listed_when_none_is_similar(wrong: str) -> None:
    with pytest.raises(ConfigError, match=", ".join(PRESETS)):
        preset_path(wrong)


@pytest.mark.parametrize("path", ["mine.toml", "folder/mine", "./small"])
def test_name_that_looks_like_a_path_is_a_path(path: str) -> None:
    assert preset_path(path) == Path(path)


def test_users_own_file_is_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[train]\nmax_iters = 3\n", encoding="utf-8")
    assert load_run_config(str(path)) == resolve({"train": {"max_iters": 3}}, {}, "")


def test_empty_preset_is_the_default_configuration() -> None:
    assert resolve({}, {}, "") == RunConfig()


def test_dataset_card_is_shipped() -> None:
    assert (shipped_folder("data") / "shakespeare.toml").is_file()
