"""Options and settings as other programs call them are answered with their names here."""

import re
from pathlib import Path

import pytest
import typer

from minigpt_cli.cli import spelling
from minigpt_cli.cli.app import app
from minigpt_cli.config.loading import setting_names
from tests.helpers.callers import Misused, Refused


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("train --n_layer=4", "--set model.n_layer=4"),
        ("train --block-size 64", "--set model.block_size=64"),
        ("train --n_layers=4", "--set model.n_layer=4"),
        ("train --gradient_accumulation_steps=4", "--set train.grad_accum_steps=4"),
        ("train --dtype float16", "--precision bf16"),
        ("train --compile=False", "--set train.compile=off"),
        ("train --eval_iters=200", "--set train.eval_tokens=VALUE"),
        ("train --max_iters=5", "--max-iters 5"),
        ("train --out_dir=out", "--out out"),
        ("train --wandb_log=True", "--log wandb"),
        ("train --max_new_tokens=5", "minigpt generate --max-new-tokens 5"),
        ("generate --start=Once", "--prompt Once"),
        ("generate --n_layer=4", "minigpt train --set model.n_layer=4"),
        ("train n_layer=2", "--set model.n_layer=2"),
        ("train --set dtype=float32", "--precision fp32"),
        ("sample", "minigpt generate"),
    ],
)
def test_a_name_from_elsewhere_is_answered_with_the_one_here(
    misused: Misused, typed: str, meant: str
) -> None:
    assert f"; did you mean {meant}?" in misused(*typed.split())


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("train --seed", "Option '--seed' requires an argument"),
        ("train --data", "Option '--data' requires an argument"),
        ("train --watch=5", "Option '--watch' does not take a value"),
        ("generate -n", "Option '-n' requires an argument"),
        ("generate --top-k two", "Invalid value for '--top-k'"),
        ("tokenize --text", "Option '--text' requires an argument"),
        ("eval --data", "Option '--data' requires an argument"),
        ("inspect --plot", "Option '--plot' requires an argument"),
        ("inspect next The -c", "Option '-c' requires an argument"),
        ("inspect next a b", "unexpected extra argument"),
        ("export runs/tiny --to", "Option '--to' requires an argument"),
    ],
)
def test_an_option_without_its_value_is_a_usage_error(
    misused: Misused, typed: str, said: str
) -> None:
    assert said in misused(*typed.split())


def test_what_means_nothing_gets_no_answer(misused: Misused) -> None:
    assert "did you mean" not in misused("train", "--zzzz=3")


def test_a_setting_outside_its_table_is_sent_into_it(refused: Refused) -> None:
    Path("flat.toml").write_text("n_layer = 2\n")
    said = refused("train", "--preset", "flat.toml")
    assert "flat.toml: unknown setting n_layer; did you mean model.n_layer, in [model]?" in said


def test_every_name_that_is_advised_exists() -> None:
    commands = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
    }
    options = {option for names in commands.values() for option in names}
    for meant in spelling._NAMES.values():
        first = meant.split()[0]
        assert first in setting_names() or first in options or first == "minigpt", meant
    for command in spelling.COMMANDS.values():
        name, *rest = command.split()
        assert name in commands
        assert set(rest) <= commands[name]


def test_the_documentation_knows_the_names_of_nanogpt() -> None:
    """What the table of names answers in the terminal is in the table of the page too."""
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
    table = page.partition("## If you know nanoGPT")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(?:--)?([a-z_0-9]+)", table))
    of_nanogpt = list(spelling._NAMES)[: list(spelling._NAMES).index("accumulation_steps")]
    assert set(of_nanogpt) <= named
