"""`minigpt train --list-settings`: everything that `--set` accepts, as the schema has it."""

import json

import pytest
from typer.testing import CliRunner

from minigpt_cli.cli.app import app
from minigpt_cli.config.listing import list_settings, names_for_completion
from minigpt_cli.config.schema import ClassicConfig, LoraConfig, RunConfig

SETTINGS = {setting.name: setting for setting in list_settings()}


def test_every_setting_of_both_families_is_listed_with_a_line() -> None:
    dump = RunConfig(lora=LoraConfig()).model_dump()
    names = {f"{section}.{key}" for section, table in dump.items() for key in table}
    names |= {f"model.{key}" for key in ClassicConfig.model_fields}
    assert set(SETTINGS) == names
    assert all(setting.text.endswith(".") for setting in SETTINGS.values())


@pytest.mark.parametrize(
    ("name", "default", "limits"),
    [
        ("train.max_iters", "5000", "above 0"),
        ("train.compile", '"auto"', "auto, on, off"),
        ("model.dropout", "0.0", "from 0.0, below 1.0"),
        ("data.val_fraction", "0.1", "above 0.0, below 1.0"),
        ("model.tie_embeddings", "false", "true, false"),
        ("optimizer.weight_decay", "0.1", "from 0.0, up to 1000000.0"),
        ("train.eval_interval", '"auto"', "above 0, auto"),
    ],
)
def test_defaults_and_limits_are_those_of_the_schema(name: str, default: str, limits: str) -> None:
    assert (SETTINGS[name].default, SETTINGS[name].limits) == (default, limits)


def test_names_and_choices_are_completed() -> None:
    assert names_for_completion("train.max") == ["train.max_iters="]
    assert names_for_completion("train.compile=o") == ["train.compile=on", "train.compile=off"]
    assert len(names_for_completion("")) == len(SETTINGS)
    assert names_for_completion("nothing.at=") == []


def test_command_prints_them_and_never_cuts_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(app, ["train", "--list-settings"]).stdout.split()
    assert set(shown) >= set(SETTINGS)
    rows = json.loads(CliRunner().invoke(app, ["train", "--list-settings", "--json"]).stdout)
    assert {row["name"]: row["default"] for row in rows}["train.max_iters"] == 5000
