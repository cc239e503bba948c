"""A text that grew, moved or went does not end what was begun with it."""

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import Result

from tests.helpers.callers import Minigpt, Refused

RUN = Path("runs/tiny")
RESUME = ("train", "--resume", RUN, "--max-iters", 22, "--set", "train.sample_tokens=0")
COMMANDS = (
    RESUME,
    ("eval", RUN),
    ("inspect", "memorized", "--samples", 1, "-c", RUN),
    ("inspect", "batch", 1, RUN),
    ("inspect", "gradients", "-c", RUN),
)


def last_loss(result: Result) -> str:
    return str(re.findall(r"^ +22 +([\d.]+)", result.stderr, re.MULTILINE)[-1])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: str(command[1]))
@pytest.mark.parametrize("how", ["grown", "moved", "gone"])
def test_prepared_text_is_used_and_said(minigpt: Minigpt, command: tuple[str], how: str) -> None:
    if how == "grown":
        with Path("story.txt").open("a") as file:
            file.write("Dear diary, and so on.\n")
    elif how == "moved":
        Path("texts").mkdir()
        Path("story.txt").rename("texts/story.txt")
    else:
        Path("story.txt").unlink()
    result = minigpt(*command)
    assert result.exit_code == 0, result.output
    assert "going on with the text as it was prepared then: data/story/" in result.stderr
    assert ("begin from this model (train --init-from)" in result.stderr) == (how == "grown")


def test_run_goes_on_exactly_with_the_prepared_text(minigpt: Minigpt) -> None:
    shutil.copytree("runs/tiny", "runs/same")
    usual = last_loss(minigpt(*("runs/same" if part == RUN else part for part in RESUME)))
    Path("story.txt").unlink()
    assert last_loss(minigpt(*RESUME)) == usual


@pytest.mark.parametrize("how", ["--data", "config.toml"])
def test_moved_text_is_accepted_by_its_new_name(minigpt: Minigpt, how: str) -> None:
    Path("texts").mkdir()
    Path("story.txt").rename("texts/book.txt")
    options = []
    if how == "--data":
        options = ["--data", "texts/book.txt"]
    else:
        config = RUN / "config.toml"
        config.write_text(config.read_text().replace("story.txt", "texts/book.txt"))
    result = minigpt(*RESUME, *options)
    assert result.exit_code == 0, result.output
    assert "prepared then" not in result.stderr
    assert "texts/book.txt" in (RUN / "config.toml").read_text()


def test_without_a_prepared_text_one_line_says_what_there_is(refused: Refused) -> None:
    shutil.rmtree("data")
    Path("story.txt").unlink()
    for command in COMMANDS:
        message = refused(*command)
        assert "story.txt: no such file" in message
        assert "its prepared copy is gone from data" in message
