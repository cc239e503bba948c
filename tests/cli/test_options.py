"""How an error that names settings tells each command how to set them."""

import pytest
import typer
from typer.testing import CliRunner

from minigpt_cli.cli.app import app
from minigpt_cli.cli.boundary import ErrorBoundary
from minigpt_cli.cli.options import SETTING_OPTIONS, how_to_set, parse_settings
from minigpt_cli.config.schema import LoraConfig, RunConfig
from minigpt_cli.errors import ConfigError

TRAIN = {"--batch-size", "--set", "--tokenizer", "--data-dir"}
TOKENIZE = {"--kind", "--data-dir"}


@pytest.mark.parametrize(
    ("settings", "available", "hint"),
    [
        ((), TRAIN, ""),
        (("train.batch_size",), TRAIN, " (set with --batch-size)"),
        (("train.batch_size=4",), TRAIN, " (set with --batch-size 4)"),
        (("model.block_size",), TRAIN, " (set with --set model.block_size=VALUE)"),
        (
            ("train.batch_size", "model.block_size=64"),
            TRAIN,
            " (set with --batch-size or --set model.block_size=64)",
        ),
        (("data.tokenizer=bpe",), TRAIN, " (set with --tokenizer bpe)"),
        (("data.tokenizer=bpe",), TOKENIZE, " (set with --kind bpe)"),
        (("data_dir",), TOKENIZE, " (set with --data-dir)"),
        (("train.batch_size", "model.block_size", "out"), TOKENIZE, ""),
        (("out",), TRAIN, ""),
    ],
)
def test_only_options_that_the_command_has_are_advised(
    settings: tuple[str, ...], available: set[str], hint: str
) -> None:
    assert how_to_set(settings, available) == hint


def test_every_option_of_a_setting_exists_and_every_setting_too() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    options = {
        option
        for name in ("train", "tokenize")
        for parameter in commands[name].params
        for option in parameter.opts
    }
    tables = RunConfig(lora=LoraConfig()).model_dump()
    fields = {f"{section}.{key}" for section, table in tables.items() for key in table}
    assert SETTING_OPTIONS.keys() <= fields | {"data_dir", "out"}
    assert {option for names in SETTING_OPTIONS.values() for option in names} <= options


def test_each_command_of_a_nested_group_is_advised_its_own_options() -> None:
    inner = typer.Typer(cls=ErrorBoundary)

    @inner.command("sized")
    def sized(batch_size: int = 1) -> None:
        raise ConfigError("too large", settings=("train.batch_size",))

    @inner.command("plain")
    def plain() -> None:
        raise ConfigError("too large", settings=("train.batch_size",))

    outer = typer.Typer(cls=ErrorBoundary)
    outer.add_typer(inner, name="inner")
    outer.command("other")(plain)
    for command, message in {
        "sized": "error: too large (set with --batch-size)\n",
        "plain": "error: too large\n",
    }.items():
        result = CliRunner().invoke(outer, ["inner", command])
        assert (result.exit_code, result.stderr) == (1, message)


def test_last_setting_wins_and_a_malformed_one_is_a_usage_error() -> None:
    assert parse_settings(["train.seed=1", "train.seed=2", "data.corpus=a=b"]) == {
        "train.seed": 2,
        "data.corpus": "a=b",
    }
    with pytest.raises(typer.BadParameter, match=r"^=3: not section[.]key=value"):
        parse_settings(["=3"])
