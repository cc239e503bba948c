"""`minigpt train --dry-run` for other machines, and `--max-memory`."""

import json
import re
from pathlib import Path

import pytest
import torch
import typer

from minigpt_cli.cli.train_options import memory_size
from minigpt_cli.config.loading import load_run_config
from minigpt_cli.runs.checkpoint import load_checkpoint
from tests.helpers.callers import Minigpt, Misused, Refused

GPT2 = ("train", "--preset", "gpt2", "--dry-run")
TINY = ("train", "--preset", "tiny", "--data", "story.txt", "--device", "cpu", "--precision",
        "fp32", "--set", "train.sample_tokens=0", "--max-iters", 4)  # fmt: skip


def test_plan_shows_what_it_computed(minigpt: Minigpt) -> None:
    options = ("--gpus", 64, "--gpu", "a100", "--utilization", 0.5)
    result = minigpt(*GPT2, *options)
    assert result.exit_code == 0
    assert re.search(r"^machines +64 × NVIDIA A100 SXM 80GB in 8 machines", result.stdout)
    assert re.search(r"^memory per GPU +10.6 GB of 80.0 GB: fits", result.stdout, re.MULTILINE)
    assert "at 50% of the bf16 peak" in result.stdout
    assert "not measured" in result.stderr
    found = json.loads(minigpt(*GPT2, *options, "--json").stdout)
    assert (found["gpus"], found["strategy"], found["parameters"]) == (64, "ddp", 124_439_808)
    kinds = {"weights", "gradients", "optimizer_state", "activations", "logits", "transients"}
    assert kinds < found["memory"].keys()
    assert found["config"]["train"]["batch_size"] == 12
    assert not Path("runs/gpt2").exists()


def test_own_machine_shows_measured_and_computed_memory(minigpt: Minigpt) -> None:
    found = json.loads(minigpt(*TINY, "--dry-run", "--json").stdout)
    assert found["memory"]["weights"] == 4 * found["parameters"]
    assert found["memory"]["peak"] > found["memory"]["program"]
    assert "memory, computed" in minigpt(*TINY, "--dry-run").stdout


def test_smaller_passes_reach_the_same_weights_but_for_rounding(minigpt: Minigpt) -> None:
    computed = json.loads(minigpt(*TINY, "--dry-run", "--json").stdout)["memory"]["peak"]
    assert minigpt(*TINY, "--out", "whole").exit_code == 0
    result = minigpt(*TINY, "--out", "split", "--max-memory", computed - 1)
    assert result.exit_code == 0
    assert "train.batch_size 8 → 4 and train.grad_accum_steps 1 → 2" in result.stderr
    train = load_run_config("split/config.toml").train
    assert (train.batch_size, train.grad_accum_steps) == (4, 2)
    whole, split = (
        load_checkpoint(Path(run, "checkpoint.safetensors")).model.state_dict()
        for run in ("whole", "split")
    )
    for name, weight in whole.items():
        # Muon's products are in bf16: rounding moves an update by up to a percent.
        torch.testing.assert_close(split[name], weight, rtol=0, atol=2e-3)
    assert any(not torch.equal(split[name], weight) for name, weight in whole.items())


def test_too_little_memory_is_refused_in_one_line(minigpt: Minigpt, refused: Refused) -> None:
    assert "one sequence at a time takes" in refused(*TINY, "--max-memory", "1MB")
    assert "one sequence at a time takes" in refused(*GPT2, "--gpus", 8, "--max-memory", "1GB")
    assert "cannot be shared among 9999 GPUs" in refused(*GPT2, "--gpus", 9999)
    assert "unknown GPU abacus; use" in refused(*GPT2, "--gpu", "abacus")
    assert "name another preset" in refused("train", "-p", "auto", "--dry-run", "--gpus", 8)


def test_options_that_need_others_are_usage_errors(misused: Misused) -> None:
    assert "need --dry-run" in misused("train", "--gpus", 8)
    assert "keeps its batches" in misused("train", "--resume", "--max-memory", "8GiB")
    assert "is not a size" in misused("train", "--max-memory", "lots")


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GiB", 2**33), ("8gib", 2**33), ("500MB", 500_000_000), ("1.5G", 3 * 2**29), ("12", 12)],
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert memory_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1GB", "0", "1e9", "8 potatoes", "9" * 400 + "GB"])
def test_other_texts_are_no_sizes(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        memory_size(text)
