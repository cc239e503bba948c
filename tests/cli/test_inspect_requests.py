"""`minigpt inspect` shows what it was asked for, or says why it cannot."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from minigpt_cli.cli.inspect.group import VIEWS
from minigpt_cli.runs.checkpoint import load_checkpoint
from tests.helpers.callers import Minigpt, Misused, Program, Refused

RUN = "runs/tiny"
TRAIN = ("train", "--preset", "tiny", "--data", "story.txt", "--device", "cpu")
FILE = "runs/tiny/checkpoint.safetensors"


def test_batch_is_shown_as_text_and_as_json(minigpt: Minigpt) -> None:
    facts = json.loads(minigpt("inspect", "batch", 3, RUN, "--json").stdout)
    shown = minigpt("inspect", "batch", 3, RUN).stdout
    assert facts["step"] == 3
    for window in facts["windows"]:
        assert f"from token {window['start']:,} of the training text" in shown
        assert window["text"].splitlines()[0] in shown


def test_batch_of_a_step_that_the_run_does_not_have_is_refused(
    refused: Refused, misused: Misused
) -> None:
    assert refused("inspect", "batch", 21, RUN) == "step 21: the run has steps 1 to 20"
    assert "STEP" in misused("inspect", "batch", 0, RUN)


@pytest.mark.parametrize("view", [("batch", 1), ("report",)])
def test_view_of_a_run_needs_its_folder(refused: Refused, view: tuple[object, ...]) -> None:
    message = refused("inspect", *view, FILE)
    assert message == f"{FILE}: not a run folder; pass one created by minigpt train"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("--attention", "old"), "--attention is now: minigpt inspect attention TEXT"),
        (("--attention=old", RUN), "--attention is now: minigpt inspect attention TEXT"),
        (("--embeddings",), "--embeddings is now: minigpt inspect embeddings"),
        ((RUN, "--shapes"), "--shapes is now: minigpt inspect shapes [TEXT]"),
        (("--gradients",), "--gradients is now: minigpt inspect gradients"),
        (("--next", "old"), "--next is now: minigpt inspect next TEXT"),
        (("--surprisal", "f"), "--surprisal is now: minigpt inspect surprisal FILE"),
        (("--memorized",), "--memorized is now: minigpt inspect memorized"),
        ((RUN, "--batch", 3), "--batch is now: minigpt inspect batch STEP [RUN]"),
        ((RUN, "--report"), "--report is now: minigpt inspect report [RUN]"),
    ],
)
def test_option_that_became_a_view_is_answered_with_the_new_spelling(
    misused: Misused, old: tuple[object, ...], new: str
) -> None:
    assert new in misused("inspect", *old)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--layer", 0), "No such option: --layer"),
        (("shapes", RUN), f"{RUN} is not a text; to choose the model use -c {RUN}"),
        (("attention", "a", "b"), "unexpected extra argument"),
        (("attention",), "Missing argument"),
        (("attention", "a", "--layer", -1), "--layer"),
        ((FILE, FILE), "several files cannot be combined"),
        ((FILE, "--plot", "x.png"), "--plot is not available for this view"),
    ],
)
def test_impossible_requests_are_usage_errors(
    misused: Misused, arguments: tuple[object, ...], said: str
) -> None:
    assert said in misused("inspect", *arguments)


@pytest.mark.parametrize("view", VIEWS)
def test_help_of_a_view_is_short_and_has_an_example(minigpt: Minigpt, view: str) -> None:
    shown = minigpt("inspect", view, "--help").stdout
    assert "Example:  minigpt inspect" in shown
    assert len(shown.splitlines()) < 40


def test_help_lists_the_views_and_the_options_of_the_overview(minigpt: Minigpt) -> None:
    shown = minigpt("inspect", "--help").stdout
    views = shown.index(" Views ")
    assert all(shown.index(f" {view} ", views) > views for view in VIEWS)
    assert shown.index("--tensors") < views
    assert shown == minigpt("inspect", RUN, "-h").stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("minigpt inspect at", ["attention"]),
        ("minigpt inspect --ten", ["--tensors"]),
        ("minigpt inspect attention --la", ["--layer"]),
    ],
)
def test_shell_completion_offers_views_and_their_options(
    program: Program, typed: str, offered: list[str]
) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split(" ")) - 1)}
    assert program(_MINIGPT_COMPLETE="complete_bash", **words).stdout.split() == offered


def test_file_with_the_name_of_a_view_is_reached_by_its_path(minigpt: Minigpt, home: Path) -> None:
    shutil.copy(FILE, home / "attention")
    assert "family" in minigpt("inspect", "./attention").stdout
    assert minigpt("inspect", "attention").exit_code == 2


def test_runs_are_listed_newest_first(minigpt: Minigpt, home: Path) -> None:
    assert minigpt(*TRAIN, "--max-iters", 40, "--out", "runs/late").exit_code == 0
    (home / "runs" / "late" / "checkpoint.safetensors").unlink()
    (home / "runs" / "empty").mkdir()
    config = home / "runs" / "tiny" / "config.toml"
    config.write_text(config.read_text().replace("max_iters = 20", "max_iters = 30"))
    late, tiny = json.loads(minigpt("inspect", "runs", "--json").stdout)
    known = load_checkpoint(Path(FILE))
    assert (late["path"], late["parameters"], late["finished"]) == ("runs/late", None, True)
    assert tiny["path"] == RUN
    assert tiny["corpus"] == ["story.txt"]
    assert tiny["parameters"] == sum(p.numel() for p in known.model.parameters())
    assert tiny["best_val_loss"] == known.metadata.val_loss
    assert (tiny["last_step"], tiny["max_iters"], tiny["finished"]) == (20, 30, False)
    rows = [line.split() for line in minigpt("inspect", "runs").stdout.splitlines() if "/" in line]
    assert [row[0] for row in rows] == ["runs/late", "runs/tiny"]
    assert rows[1][4:8] == ["20", "of", "30", "unfinished"]


def test_no_runs_yet_says_how_to_make_one(minigpt: Minigpt, home: Path) -> None:
    (home / "runs").rename(home / "elsewhere")
    result = minigpt("inspect", "runs")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "minigpt train --preset small" in result.stderr


def test_parameters_of_a_state_are_those_of_its_model(minigpt: Minigpt) -> None:
    model = load_checkpoint(Path(FILE)).model
    facts = json.loads(minigpt("inspect", "runs/tiny/state.safetensors", "--json").stdout)
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())


def test_long_metadata_is_shortened_in_the_table_only(minigpt: Minigpt, home: Path) -> None:
    metadata = {"k" * 150: "v" * 500}
    save_file({"w": torch.ones(2)}, "foreign.safetensors", metadata)
    shown = minigpt("inspect", "foreign.safetensors").stdout
    assert f"{'k' * 30}..." in shown
    assert "k" * 31 not in shown
    facts = json.loads(minigpt("inspect", "foreign.safetensors", "--json").stdout)
    assert facts["metadata"] == metadata


@pytest.mark.parametrize("view", ["attention", "next", "shapes"])
def test_unknown_words_are_counted(minigpt: Minigpt, home: Path, view: str) -> None:
    words = ["--data", "story.txt", "--tokenizer", "word", "--out", "words", "--device", "cpu"]
    assert minigpt("train", "--preset", "tiny", *words, "--max-iters", 2).exit_code == 0
    result = minigpt("inspect", view, "zebra and xylophone", "-c", "words")
    assert result.exit_code == 0
    assert "2 of its words are not in the model's vocabulary (<unk>)" in result.stderr


@pytest.mark.parametrize("text", ["", "T"])
def test_text_too_short_to_predict_is_refused(refused: Refused, home: Path, text: str) -> None:
    Path("short.txt").write_text(text, encoding="utf-8")
    assert "needs at least 2; pass a longer text" in refused(
        "inspect", "surprisal", "short.txt", "-c", FILE
    )
