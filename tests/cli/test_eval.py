"""`minigpt eval`: the figures of the evaluation, of the text that was asked for."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from minigpt_cli.runs.checkpoint import load_checkpoint
from tests.helpers.callers import Minigpt, Refused

RUN = "runs/tiny"


def figures(minigpt: Minigpt, *arguments: object) -> list[dict[str, Any]]:
    result = minigpt("eval", *arguments, "--json")
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def by_hand(text: str) -> dict[str, float]:
    """The same figures, one window at a time."""
    loaded = load_checkpoint(Path(RUN, "checkpoint.safetensors"))
    ids = torch.tensor(loaded.tokenizer.encode(text))
    nats, hits, block = 0.0, 0, loaded.metadata.model.block_size
    for start in range(0, len(ids) - 1, block):
        y = ids[start + 1 : start + block + 1]
        with torch.inference_mode():
            logits = loaded.model(ids[None, start : start + len(y)])[0]
        nats += F.cross_entropy(logits.double(), y, reduction="sum").item()
        hits += int((logits.argmax(-1) == y).sum())
    count = len(ids) - 1
    return {
        "tokens": count,
        "loss": nats / count,
        "perplexity": math.exp(nats / count),
        "bits_per_byte": nats / math.log(2) / len(text[1:].encode()),
        "accuracy": hits / count,
    }


@pytest.mark.parametrize("split", ["train", "val", "all"])
def test_results_match_those_computed_by_hand(minigpt: Minigpt, story: str, split: str) -> None:
    cut = int(len(story) * 0.9)
    text = {"train": story[:cut], "val": story[cut:], "all": story}[split]
    (found,) = figures(minigpt, RUN, "--split", split)
    for name, value in by_hand(text).items():
        assert found[name] == pytest.approx(value, rel=1e-5), name
    assert found["split"] == split


def test_validation_split_of_the_own_text_is_the_default(minigpt: Minigpt) -> None:
    (found,) = figures(minigpt)
    facts = load_checkpoint(Path(RUN, "checkpoint.safetensors")).metadata
    assert found["split"] == "val"
    assert found["loss"] == facts.val_loss
    assert found["bits_per_byte"] == facts.bits_per_byte
    assert found["step"] == facts.step


def test_other_text_is_scored_whole(minigpt: Minigpt, story: str, home: Path) -> None:
    text = story[40:400]
    (home / "other.txt").write_text(text, encoding="utf-8")
    (found,) = figures(minigpt, RUN, "--data", "other.txt")
    for name, value in by_hand(text).items():
        assert found[name] == pytest.approx(value, rel=1e-5), name
    assert found["split"] == "all"


def test_results_are_deterministic(minigpt: Minigpt) -> None:
    assert figures(minigpt, RUN) == figures(minigpt, RUN)


def test_several_checkpoints_share_a_table(minigpt: Minigpt) -> None:
    settings = ["--set", "data.tokenizer=byte", "--set", "train.sample_tokens=0"]
    run = ["--preset", "tiny", "--data", "story.txt", "--max-iters", 2, "--out", "runs/by[te]"]
    assert minigpt("train", *run, *settings, "--device", "cpu").exit_code == 0
    result = minigpt("eval", RUN, "runs/by[te]")
    rows = [line for line in result.stdout.splitlines() if line.strip().startswith("runs/")]
    assert [row.split()[:3] for row in rows] == [
        ["runs/tiny", "char", "20"],
        ["runs/by[te]", "byte", "2"],
    ]
    for row, found in zip(rows, figures(minigpt, RUN, "runs/by[te]"), strict=True):
        numbers = row.split()[3:]
        assert numbers == [
            f"{found['tokens']:,}",
            f"{found['loss']:.4f}",
            f"{found['perplexity']:.3f}",
            f"{found['bits_per_byte']:.4f}",
            f"{found['accuracy']:.1%}",
        ]


def test_brackets_in_a_name_are_shown(minigpt: Minigpt, story: str, home: Path) -> None:
    (home / "my[red]text.txt").write_text(story, encoding="utf-8")
    assert "my[red]text.txt, whole text" in minigpt("eval", RUN, "--data", "my[red]text.txt").stdout


def test_words_outside_the_vocabulary_are_counted(minigpt: Minigpt, home: Path) -> None:
    (home / "other.txt").write_text("The zebra counts the stars", encoding="utf-8")
    run = ["--preset", "tiny", "--data", "story.txt", "--max-iters", 2, "--out", "runs/words"]
    assert minigpt("train", *run, "--set", "data.tokenizer=word").exit_code == 0
    result = minigpt("eval", "runs/words", "--data", "other.txt")
    # zebra, the, stars of the eight tokens after the first
    told = re.search(r"([\d.]+)% of the tokens are <unk>", result.stderr)
    tokenizer = load_checkpoint(Path("runs/words/checkpoint.safetensors")).tokenizer
    ids = np.array(tokenizer.encode("The zebra counts the stars")[1:])
    assert told is not None
    assert float(told[1]) == pytest.approx(100 * (ids == 0).mean(), abs=0.06)


def test_changed_text_is_not_scored_as_the_old_one(refused: Refused, home: Path) -> None:
    with (home / "story.txt").open("a") as file:
        file.write("And so on.\n")
    shutil.rmtree("data")
    assert "story: the text has changed since the model was trained" in refused("eval", RUN)


def test_text_with_unknown_characters_is_refused(refused: Refused, home: Path) -> None:
    (home / "other.txt").write_text("Ω and so on", encoding="utf-8")
    assert "'Ω' (U+03A9)" in refused("eval", RUN, "--data", "other.txt")


def test_text_of_one_token_is_refused(refused: Refused, home: Path) -> None:
    (home / "other.txt").write_text("a", encoding="utf-8")
    assert "has 1 tokens and needs at least 2" in refused("eval", RUN, "--data", "other.txt")


def test_int8_says_what_it_costs(minigpt: Minigpt) -> None:
    (whole,), (rounded,) = figures(minigpt, RUN), figures(minigpt, RUN, "--quantize", "int8")
    assert rounded["loss"] != whole["loss"]
    assert rounded["loss"] == pytest.approx(whole["loss"], abs=0.02)
    cost = rounded["loss"] - whole["loss"]
    note = minigpt("eval", RUN, "--quantize", "int8").stderr
    assert f"int8 adds {cost:+.4f} to the loss ({whole['loss']:.4f} without)" in note


def test_files_of_a_folder_are_said_once(minigpt: Minigpt, home: Path, story: str) -> None:
    (home / "notes" / ".git").mkdir(parents=True)
    for name in ("a.txt", "b.txt"):
        (home / "notes" / name).write_text(story[:500], encoding="utf-8")
    result = minigpt("eval", RUN, RUN, "--data", "notes")
    assert result.exit_code == 0
    assert result.stderr.count("Read 2 files (1.0 kB); left out 1: 1 version control folder") == 1
