"""Weights that are finite, but whose products are not: one line everywhere, and no NaN in JSON."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from minigpt_cli.cli.app import app
from minigpt_cli.config.schema import ModelConfig, ModernConfig
from minigpt_cli.errors import NonFiniteError
from minigpt_cli.io.strict_json import read_json, write_json
from minigpt_cli.runs.checkpoint import checkpoint_file, load_checkpoint
from minigpt_cli.runs.metrics import StepRow, to_line
from tests.helpers.tiny_checkpoint import CLASSIC, MODERN, tiny_checkpoint

VIEWS: list[tuple[Any, ...]] = [
    ("generate", "-n", 9, "-p", "ab", "-c"), ("generate", "-n", 9, "--temperature", 0, "-c"),
    ("generate", "-n", 9, "--json", "--show-probabilities", "-c"),
    ("inspect", "next", "ab", "-c"), ("inspect", "next", "ab", "--json", "-c"),
    ("inspect", "attention", "abab", "-c"), ("inspect", "attention", "abab", "--json", "-c"),
    ("inspect", "surprisal", "text.txt", "-c"),
    ("inspect", "surprisal", "text.txt", "--json", "-c"),
    ("eval", "--data", "text.txt"), ("eval", "--json", "--data", "text.txt"),
]  # fmt: skip
STAY = [("inspect",), ("inspect", "--json")]


def broken(path: Path, how: str) -> None:
    """A checkpoint whose weights are finite and whose logits are not."""
    config: ModelConfig = CLASSIC if how == "classic" else MODERN
    if how == "rotary":
        config = ModernConfig(**{**MODERN.model_dump(), "n_embd": 64, "rope_theta": 5e-324})
    tiny_checkpoint(path, config)
    if how != "rotary":
        checkpoint = load_checkpoint(path)
        with torch.no_grad():
            for name, weight in checkpoint.model.named_parameters():
                if how == "classic" or name.startswith(how):
                    weight.fill_(3e38)
        checkpoint_file(path, checkpoint.model, checkpoint.metadata).write()


@pytest.mark.parametrize("command", VIEWS + STAY, ids=lambda command: " ".join(map(str, command)))
@pytest.mark.parametrize("how", ["blocks", "classic", "head", "rotary"])
def test_every_view_answers_in_one_line_or_with_valid_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, command: tuple[Any, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    broken(tmp_path / "m.safetensors", how)
    (tmp_path / "text.txt").write_text("abba\n" * 9)
    result = CliRunner().invoke(app, [*map(str, command), "m.safetensors"], catch_exceptions=False)
    if command in STAY:
        assert result.exit_code == 0
    else:
        assert result.exit_code == 1
        lines = result.stderr.splitlines()
        assert [line.startswith("error: the model's ") for line in lines] == [True]
    if "--json" in command and result.stdout:
        read_json(result.stdout)


@pytest.mark.parametrize("how", ["classic", "token_embedding"])
def test_embeddings_too_large_to_compare_are_refused(tmp_path: Path, how: str) -> None:
    from minigpt_cli.inspection.embeddings import project_embeddings

    broken(tmp_path / "m.safetensors", how)
    checkpoint = load_checkpoint(tmp_path / "m.safetensors")
    with torch.no_grad():
        checkpoint.model.token_embedding.weight[0] = -3e38
    with pytest.raises(NonFiniteError, match="embeddings"):
        project_embeddings(checkpoint)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_json_holds_no_nan(bad: float) -> None:
    value = {"a": bad, "b": [1.5, (bad, {"c": bad})], "d": "NaN", "e": 1}
    assert read_json(write_json(value)) == {
        "a": None,
        "b": [1.5, [None, {"c": None}]],
        "d": "NaN",
        "e": 1,
    }
    row = StepRow(step=1, loss=1.0, learning_rate=bad, tokens_per_second=bad, grad_norm=bad)
    assert json.loads(to_line(row))["grad_norm"] is None
    read_json(to_line(row))
