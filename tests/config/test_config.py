"""Presets and overrides: what is accepted, and how errors are worded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from minigpt_cli.config.loading import load_run_config, parse_override, read_toml, resolve
from minigpt_cli.config.schema import (
    ClassicConfig,
    DataConfig,
    DistributedConfig,
    ModernConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
    differences,
)
from minigpt_cli.errors import ConfigError

OWN: dict[str, type[BaseModel]] = {
    "data": DataConfig,
    "optimizer": OptimizerConfig,
    "train": TrainConfig,
    "distributed": DistributedConfig,
}
KEYS = {
    "model": {*ClassicConfig.model_fields, *ModernConfig.model_fields},
    **{section: {*table.model_fields} for section, table in OWN.items()},
}


def problem(tables: dict[str, Any], *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(tables, dict(map(parse_override, overrides)), "my.toml")
    return str(caught.value)


def outcome(make: Callable[[], RunConfig]) -> RunConfig | str:
    """A configuration or the message of a `ConfigError`; other exceptions fail the test."""
    try:
        return make()
    except ConfigError as error:
        return str(error)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("train.max_iters=7", 7),
        ("optimizer.learning_rate=1e-4", 1e-4),
        ("optimizer.learning_rate = 1", 1.0),
        ("model.tie_embeddings=true", True),
        ('data.corpus=["a.txt", "b"]', ("a.txt", "b")),
        ("data.corpus=a.txt", ("a.txt",)),
        ("data.encoding=gb18030", "gb18030"),
        ("train.device='cuda:1'", "cuda:1"),
        ("optimizer.betas=[0.8, 0.95]", (0.8, 0.95)),
    ],
)
def test_override_reaches_its_setting(text: str, value: object) -> None:
    section, key = text.partition("=")[0].strip().split(".")
    config = resolve({}, dict([parse_override(text)]), "my.toml")
    assert getattr(getattr(config, section), key) == value
    changed = config.model_dump()
    changed[section].pop(key)
    untouched = resolve({}, {}, "my.toml").model_dump()
    untouched[section].pop(key)
    assert changed == untouched


def test_override_wins_over_the_file_and_leaves_its_tables_as_they_are() -> None:
    tables = {"train": {"max_iters": 1}}
    assert resolve(tables, {"train.max_iters": 3}, "my.toml").train.max_iters == 3
    assert tables == {"train": {"max_iters": 1}}


def test_all_problems_of_a_file_are_reported_at_once() -> None:
    message = problem(
        {
            "model": {"n_layr": 3, "n_head": "four"},
            "data": {"tokenizer": "letters"},
            "optimizer": {"betas": [0.9]},
            "training": {},
        }
    )
    assert message.startswith("my.toml: ")
    assert "\n" not in message
    for part in (
        "unknown setting model.n_layr; did you mean n_layer?",
        'model.n_head = "four"',
        "data.tokenizer = \"letters\": must be 'char', 'word', 'byte', 'bpe' or 'pretrained'",
        "optimizer.betas",
        "unknown setting training; did you mean train?",
    ):
        assert part in message


def test_unknown_key_without_a_similar_name_lists_the_allowed_ones() -> None:
    message = problem({"train": {"zzz": 1}})
    assert "unknown setting train.zzz" in message
    for name in KEYS["train"]:
        assert name in message


def test_setting_of_the_other_family_is_explained() -> None:
    message = problem({"model": {"family": "modern", "activation": "relu"}})
    assert 'it belongs to model.family = "classic"' in message
    assert "rope_theta" in message
    assert ", bias" not in message


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            {"model": {"n_head": 5, "n_embd": 128}},
            "model.n_head = 5 does not divide model.n_embd = 128; try 4 or 8",
        ),
        ({"model": {"n_embd": 24, "n_head": 8}}, "model.n_embd / model.n_head = 3 is odd"),
        ({"model": {"n_kv_head": 4}}, "model.n_kv_head = 4 does not divide model.n_head = 6"),
        (
            {"optimizer": {"learning_rate": 0.1, "min_lr": 0.2}},
            "optimizer.min_lr = 0.2 is above optimizer.learning_rate = 0.1",
        ),
        ({"data": {"corpus": []}}, "data.corpus = []: names no text"),
        ({"data": {"val_fraction": 1.0}}, "data.val_fraction = 1.0: must be less than 1"),
        ({"optimizer": {"betas": [0.9, 1.0]}}, "optimizer.betas[1] = 1.0"),
        ({"model": {"family": "gpt5"}}, 'model.family = "gpt5": must be "classic" or "modern"'),
        ({"model": 3}, "model must be a table, written [model]"),
        ({"train": [1]}, "train must be a table, written [train]"),
        ({"optimizer": "adamw"}, "optimizer must be a table, written [optimizer]"),
    ],
)
def test_invalid_values_are_reported_with_a_fix(tables: dict[str, Any], message: str) -> None:
    assert f"my.toml: {message}" in problem(tables)


@pytest.mark.parametrize("value", ['"3"', "3.0", "true", "[3]", "{a = 3}", "2001-01-01", "nan"])
def test_only_an_integer_is_accepted_as_an_integer(value: str) -> None:
    assert "model.n_layer = " in problem(tomli.loads(f"[model]\nn_layer = {value}"))


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1" + "0" * 400])
def test_nan_and_infinity_are_rejected(value: str) -> None:
    assert "optimizer.learning_rate = " in problem({}, f"optimizer.learning_rate={value}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.n_head=5", "model.n_head = 5 does not divide model.n_embd = 384"),
        ("model.n_head", "model.n_head: not section.key=value"),
        ("n_heads=4", "unknown setting n_heads; did you mean model.n_head"),
        ("n_head=5", "model.n_head = 5 does not divide model.n_embd = 384"),
        (".n_head=4", ".n_head=4: not section.key=value"),
        ("modle.n_head=4", "unknown setting modle; did you mean model?"),
        ("modle.train=4", "unknown setting modle; did you mean model?"),
        ("train.batch_sise=4", "unknown setting train.batch_sise; did you mean batch_size?"),
        ("train.max_iters=ten", 'train.max_iters = "ten": must be a valid integer'),
    ],
)
def test_a_bad_override_is_not_blamed_on_the_file(override: str, message: str) -> None:
    found = problem({}, override)
    assert message in found
    assert "my.toml" not in found


def test_suggested_head_counts_divide_the_width() -> None:
    for n_embd in (30, 96, 128, 384):
        for n_head in range(1, n_embd + 1):
            try:
                ClassicConfig(n_embd=n_embd, n_head=n_head)
            except ValueError as error:
                tried = str(error).split("try ")[1].split(" [")[0].split(" or ")
                assert all(n_embd % int(count) == 0 for count in tried)
            else:
                assert n_embd % n_head == 0


def test_huge_head_count_is_rejected_without_a_loop_over_it() -> None:
    assert "does not divide" in problem({}, "model.n_head=2147483647", "model.n_embd=2147483646")


def test_default_learning_rate_follows_the_optimizer() -> None:
    assert resolve({}, {"optimizer.name": "adamw"}, "").optimizer.learning_rate == 0.001
    assert resolve({}, {"optimizer.name": "muon"}, "").optimizer.learning_rate == 0.02
    assert resolve({}, {"optimizer.learning_rate": 0.5}, "").optimizer.learning_rate == 0.5


def test_validated_configuration_is_frozen() -> None:
    config = load_run_config("tiny")
    with pytest.raises(ValueError, match="frozen"):
        config.train.max_iters = -1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[model\nn_layer = 3", "line 1"),
        (b"[model]\nn_layer = = 3", "line 2, column 11"),
        (b"[model]\nn_layer = 3\nn_layer = 4\n", "line 3"),
        (b"[model]\n# \xff", "not UTF-8 at byte 10"),
        (b"x = " + b"9" * 5000, "not valid TOML"),
        (b"x = " + b"[" * 5000, "not valid TOML"),
    ],
)
def test_broken_toml_says_where(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_toml(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_missing_preset_file_and_a_folder_instead_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_run_config(str(tmp_path / "none.toml"))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_run_config(f"{tmp_path}/")


def test_file_with_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes("\ufeff[train]\nmax_iters = 5".encode())
    assert load_run_config(str(path)).train.max_iters == 5


# Anything that TOML can contain, and much that it cannot.
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
sections = st.sampled_from([*KEYS, "other", ""])


@given(st.data())
def test_wrong_types_anywhere_raise_only_config_errors(data: st.DataObject) -> None:
    tables: dict[str, Any] = {}
    for section in data.draw(st.lists(sections, max_size=3)):
        names = st.sampled_from(sorted(KEYS.get(section, {"key"}))) | st.text(max_size=5)
        tables[section] = data.draw(st.dictionaries(names, values, max_size=3) | values)
    assert outcome(lambda: resolve(tables, {}, "my.toml"))


@given(
    st.sampled_from([f"{section}.{key}" for section in KEYS for key in sorted(KEYS[section])])
    | st.text(max_size=10),
    st.text() | values.map(str),
)
def test_any_override_raises_only_config_errors(name: str, value: str) -> None:
    assert outcome(lambda: resolve({}, dict([parse_override(f"{name}={value}")]), "my.toml"))


@given(st.binary(max_size=60) | st.text(alphabet="[]{}=.#\"'\n\\aé1-: ,", max_size=40))
def test_any_file_raises_only_config_errors(
    tmp_path_factory: pytest.TempPathFactory, content: bytes | str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = outcome(lambda: resolve(read_toml(path), {}, "my.toml"))
    assert isinstance(found, RunConfig) or found.startswith((f"{path}: ", "my.toml: "))


configurations = st.builds(
    resolve,
    st.fixed_dictionaries(
        {
            "model": st.fixed_dictionaries(
                {"n_layer": st.integers(1, 99), "dropout": st.floats(0, 0.99)}
            ),
            "data": st.fixed_dictionaries(
                {
                    "corpus": st.lists(st.text(), min_size=1, max_size=3),
                    "vocab_size": st.none() | st.integers(1, 10**6),
                }
            ),
            "optimizer": st.fixed_dictionaries(
                {"learning_rate": st.floats(1e-300, 1e6), "name": st.sampled_from(["adamw"])}
            ),
            "train": st.fixed_dictionaries({"seed": st.integers(0, 2**31 - 1)}),
        }
    ),
    st.just({}),
    st.just(""),
)


@given(configurations)
@example(resolve({"lora": {"rank": 4, "targets": ["q", "v"]}}, {}, ""))
@example(resolve({"data": {"corpus": ['a \x7f\x00\n"\\ é 文']}}, {}, ""))
def test_configuration_survives_a_round_trip_through_toml(config: RunConfig) -> None:
    assert resolve(tomli.loads(config.to_toml()), {}, "") == config


def test_rules_between_fields_are_reported_together_with_invalid_fields() -> None:
    tables = {
        "model": {"n_head": 5, "n_embd": 128, "foo": 1},
        "optimizer": {"min_lr": 1.0, "name": "sgd"},
        "train": {"max_iters": "x", "seed": -1},
    }
    with pytest.raises(ConfigError) as caught:
        resolve(tables, {}, "mine.toml")
    message = str(caught.value)
    assert message.count("does not divide") == 1
    for part in (
        "model.foo",
        "try 4 or 8",
        "min_lr = 1.0 is above",
        "train.max_iters",
        "train.seed",
    ):
        assert part in message


def test_file_name_that_is_not_utf8_is_rejected() -> None:
    with pytest.raises(ConfigError, match="is not valid UTF-8; rename the file"):
        resolve({"data": {"corpus": ["caf\udce9.txt"]}}, {}, "")


def test_differences_name_every_setting_that_differs() -> None:
    one = RunConfig()
    classic = resolve({"model": {"family": "classic"}, "train": {"seed": 3}}, {}, "")
    assert differences(one, one) == {}
    found = differences(one, classic, one)
    assert found["train.seed"] == (0, 3, 0)
    assert found["model.family"] == ("modern", "classic", "modern")
    assert found["model.rope_theta"] == (10_000.0, None, 10_000.0)
    assert {name.partition(".")[0] for name in found} == {"model", "train"}


def test_settings_of_adapters_are_there_only_in_a_run_that_trains_them() -> None:
    plain, adapted = RunConfig(), resolve({}, {"lora.rank": 4}, "")
    assert "[lora]" not in plain.to_toml()
    assert "[lora]\nrank = 4\nalpha = 16.0\n" in adapted.to_toml()
    found = differences(plain, adapted)
    assert found["lora.rank"] == (None, 4)
    assert {name.partition(".")[0] for name in found} == {"lora"}
