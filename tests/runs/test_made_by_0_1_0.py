"""A run that minigpt 0.1.0 trained is still loaded, inspected and resumed.

`made_by_0.1.0/` was written by the code of that release: a run of 6 steps of the `tiny` preset with
`n_layer=1 n_head=1 n_embd=4 n_hidden=4 block_size=8` on `tale.txt`, seed 3; only the names of the
system and the processor in its metrics were shortened. `logits.json` holds what 0.1.0 computed from
its checkpoint.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from minigpt_cli.cli.app import app
from minigpt_cli.config.loading import load_run_config
from minigpt_cli.inspection.run_history import read_run
from minigpt_cli.runs.checkpoint import load_checkpoint
from minigpt_cli.runs.folder import RunFolder

FIXTURE = Path(__file__).with_name("made_by_0.1.0")
VAL_LOSS_AT_9 = 3.51448269532277
"""After 0.1.0 itself had resumed the run to step 9."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    shutil.copytree(FIXTURE, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    monkeypatch.setattr("minigpt_cli.training.trainer.matmul_flops", lambda *_: 1e12)
    return RunFolder(Path("run"))


def test_checkpoint_computes_the_same_logits(run: RunFolder) -> None:
    loaded = load_checkpoint(run.checkpoint)
    recorded = json.loads(Path("logits.json").read_text())
    with torch.no_grad():
        logits = loaded.model(torch.tensor([loaded.tokenizer.encode(recorded["prompt"])]))
    assert torch.allclose(logits[0], torch.tensor(recorded["logits"]), atol=1e-5)
    assert (loaded.metadata.version, loaded.metadata.step) == ("0.1.0", 6)


def test_checkpoint_knows_its_model_and_its_text_but_not_its_other_settings(run: RunFolder) -> None:
    metadata = load_checkpoint(run.checkpoint).metadata
    config = load_run_config(str(run.config))
    assert (metadata.model, metadata.data) == (config.model, config.data)
    assert (metadata.config, metadata.optimizer, metadata.train) == (None, None, None)


def test_history_is_read_with_the_old_name_of_mfu(run: RunFolder) -> None:
    history = read_run(run.path)
    assert history.config is not None
    assert [row.step for row in history.steps] == [1, 2, 3, 4, 5, 6]
    assert [row.step for row in history.evaluations] == [3, 6]
    assert history.evaluations[-1].mfu == pytest.approx(6.957129491454033e-05)
    assert history.evaluations[-1].is_best
    assert [row.step for row in history.samples] == [3, 6]
    assert history.machines[0].minigpt == "0.1.0"


def test_run_is_resumed_and_ends_as_0_1_0_would_have_ended_it(run: RunFolder) -> None:
    result = CliRunner().invoke(
        app, ["train", "--resume", "run", "--max-iters", "9"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    history = read_run(run.path)
    assert [row.step for row in history.steps] == list(range(1, 10))
    assert history.evaluations[-1].val_loss == pytest.approx(VAL_LOSS_AT_9, abs=1e-4)
    assert load_checkpoint(run.checkpoint).metadata.config is not None
