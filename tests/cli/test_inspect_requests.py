"""What `inspect` is asked for is what it shows, or what it refuses."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from minigpt_cli.runs.checkpoint import load_checkpoint
from tests.helpers.callers import Minigpt, Refused

RUN = "runs/tiny"
FILE = "runs/tiny/checkpoint.safetensors"


def test_batch_is_shown_as_text_and_as_json(minigpt: Minigpt) -> None:
    facts = json.loads(minigpt("inspect", RUN, "--batch", 3, "--json").stdout)
    shown = minigpt("inspect", RUN, "--batch", 3).stdout
    assert facts["step"] == 3
    for window in facts["windows"]:
        assert f"from token {window['start']:,} of the training text" in shown
        assert window["text"].splitlines()[0] in shown


def test_batch_zero_is_refused_and_no_loss_curve(refused: Refused) -> None:
    assert refused("inspect", RUN, "--batch", 0).startswith("--batch 0: the run has steps 1 to 20")


@pytest.mark.parametrize("view", [("--batch", 1), ("--report",)])
def test_view_of_a_run_wants_its_folder(refused: Refused, view: tuple[object, ...]) -> None:
    assert refused("inspect", FILE, *view).startswith(f"{FILE}: not a run folder; pass one")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--embeddings", "--gradients"), "--embeddings and --gradients: one view at a time"),
        (("--layer", 0), "--layer belongs to --attention"),
        (("--seed", 0), "--seed belongs to --memorized"),
        (("--tensors", "--embeddings"), "--tensors lists a file's tensors"),
        (("--shapes", RUN), f"to look at {RUN}, name it before --shapes"),
    ],
)
def test_impossible_requests_are_usage_errors(
    minigpt: Minigpt, options: tuple[object, ...], said: str
) -> None:
    result = minigpt("inspect", *options)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.replace("│", " ").split())


def test_parameters_of_a_state_are_those_of_its_model(minigpt: Minigpt) -> None:
    model = load_checkpoint(Path(FILE)).model
    facts = json.loads(minigpt("inspect", "runs/tiny/state.safetensors", "--json").stdout)
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())


def test_long_metadata_leave_room_for_the_facts(minigpt: Minigpt, home: Path) -> None:
    metadata = {"k" * 150: "v" * 500}
    save_file({"w": torch.ones(2)}, "foreign.safetensors", metadata)
    shown = minigpt("inspect", "foreign.safetensors").stdout
    assert f"{'k' * 30}..." in shown
    assert "k" * 31 not in shown
    facts = json.loads(minigpt("inspect", "foreign.safetensors", "--json").stdout)
    assert facts["metadata"] == metadata


@pytest.mark.parametrize("view", ["--attention", "--next", "--shapes"])
def test_unknown_words_are_counted(minigpt: Minigpt, home: Path, view: str) -> None:
    words = ["--data", "story.txt", "--tokenizer", "word", "--out", "words", "--device", "cpu"]
    assert minigpt("train", "--preset", "tiny", *words, "--max-iters", 2).exit_code == 0
    result = minigpt("inspect", "words", view, "zebra and xylophone")
    assert result.exit_code == 0
    assert "2 of its words are <unk>" in result.stderr


@pytest.mark.parametrize("text", ["", "T"])
def test_text_too_short_to_predict_is_refused(refused: Refused, home: Path, text: str) -> None:
    Path("short.txt").write_text(text, encoding="utf-8")
    assert "needs at least 2; give a longer text" in refused(
        "inspect", FILE, "--surprisal", "short.txt"
    )
