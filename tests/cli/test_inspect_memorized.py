"""`minigpt inspect memorized`: its figures and its verdict."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from minigpt_cli.cli.inspect.memorized import _why
from minigpt_cli.inspection.memorized import Measure
from tests.helpers.callers import Minigpt, Misused, Refused

RUN = "runs/tiny"


def test_table_agrees_with_the_json(minigpt: Minigpt, story: str) -> None:
    options = ("inspect", "memorized", "-c", RUN, "--samples", 2)
    facts = json.loads(minigpt(*options, "--json").stdout)
    shown = minigpt(*options).stdout
    written, unseen = facts["written"], facts["unseen"]
    assert (facts["samples"], facts["tokens"], written["characters"]) == (2, 500, 1000)
    assert unseen["characters"] == len(story) - int(len(story) * 0.9)
    for name, measure in (("generated: 2 of 500 tokens", written), ("unseen: ", unseen)):
        (row,) = [line for line in shown.splitlines() if line.strip().startswith(name)]
        assert row.split()[-3:] == [
            f"{measure['characters']:,}",
            str(measure["longest"]),
            f"{measure['share']:.1%}",
        ]
    assert facts["verdict"].split()[0] in shown
    training = story[: int(len(story) * 0.9)]
    for passage in facts["passages"]:
        assert passage["text"] in training
        assert passage["times"] == sum(
            training.startswith(passage["text"], i) for i in range(len(training))
        )
    longest = facts["passages"][0]
    assert len(longest["text"]) == written["longest"]
    line = training.splitlines()[longest["line"] - 1]
    assert longest["text"].strip().split("\n")[0] in line


def test_seed_chooses_the_texts(minigpt: Minigpt) -> None:
    def facts(seed: int) -> str:
        options = ("memorized", "--samples", 1, "--seed", seed, "--json")
        return minigpt("inspect", *options).stdout

    assert facts(0) == facts(0) != facts(1)


def test_number_of_texts_must_be_one_or_more(misused: Misused) -> None:
    assert "--samples" in misused("inspect", "memorized", "--samples", 0)


def test_changed_training_text_is_refused(refused: Refused, home: Path) -> None:
    with (home / "story.txt").open("a") as file:
        file.write("And so on.\n")
    shutil.rmtree("data")
    assert "the text has changed since" in refused("inspect", "memorized", "-c", RUN)


@pytest.mark.parametrize("option", ["--plot", "--html"])
def test_what_this_view_cannot_make_is_a_usage_error(minigpt: Minigpt, option: str) -> None:
    result = minigpt("inspect", "memorized", option, "x.png")
    assert result.exit_code == 2
    assert option in result.stderr
    assert not Path("x.png").exists()


@pytest.mark.parametrize(
    ("verdict", "written", "unseen", "said"),
    [
        ("writes", 0.05, 0.03, "hardly more"),
        ("writes", 0.00, 0.03, "no more"),
        ("copies in places", 0.08, 0.03, "more"),
        ("copies in places", 0.81, 0.97, "no more"),
        ("copies", 0.60, 0.03, "far more"),
    ],
)
def test_reason_does_not_contradict_its_numbers(
    verdict: str, written: float, unseen: float, said: str
) -> None:
    found = SimpleNamespace(
        verdict=verdict, written=Measure(5000, 30, written), unseen=Measure(500, 25, unseen)
    )
    assert _why(found).startswith(f"{said} of it is copied")  # type: ignore[arg-type]


def test_where_unseen_text_is_copied_too_the_reason_says_so() -> None:
    measure = Measure(500, 25, 0.5)
    found = SimpleNamespace(verdict="cannot tell", written=measure, unseen=measure)
    assert "because the texts repeat themselves" in _why(found)  # type: ignore[arg-type]
