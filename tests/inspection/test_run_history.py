"""What a run's folder tells: from rows as they are written, half-written, foreign or hostile."""

import json
from pathlib import Path
from typing import Any

import pytest

from minigpt_cli.config.schema import RunConfig
from minigpt_cli.errors import CheckpointError
from minigpt_cli.inspection.run_history import RunHistory, read_run
from minigpt_cli.runs.metrics import EvaluationRow, RewindRow, SpikeRow, StepRow


def run_of(folder: Path, *rows: dict[str, Any] | str) -> RunHistory:
    """A folder with these lines of metrics, read."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "metrics.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "config.toml").write_text(RunConfig().to_toml(), encoding="utf-8")
    return read_run(folder)


def step(number: int, loss: float = 2.0, **more: Any) -> dict[str, Any]:
    return {"type": "step", "step": number, "loss": loss, **more}


def evaluation(number: int, train: float, val: float) -> dict[str, Any]:
    return {"type": "evaluation", "step": number, "train_loss": train, "val_loss": val}


def test_trained_run_is_read_whole(trained_home: Path) -> None:
    folder = trained_home / "runs" / "tiny"
    run = read_run(folder)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row.loss for row in run.steps] == [r["loss"] for r in rows if r["type"] == "step"]
    assert [row.step for row in run.steps] == list(range(1, 21))
    val_losses = {r["val_loss"]: r["step"] for r in rows if r["type"] == "evaluation"}
    assert run.best is not None
    assert run.best.step == val_losses[min(val_losses)]
    assert run.last_step == 20
    assert run.config is not None
    assert run.config.train.max_iters == 20


def test_incomplete_last_line_is_skipped(tmp_path: Path) -> None:
    assert run_of(tmp_path, step(1), step(2), '{"type": "step", "step": 3, "lo').last_step == 2


@pytest.mark.parametrize(
    "line",
    [
        "", "[]", "7", "null", "{}", '{"type": ["step"]}', '{"type": "step"}',
        '{"type": "dream", "step": 2}', '{"type": "step", "step": 2, "loss": NaN}',
        '{"type": "step", "step": 2, "loss": Infinity}',
        '{"type": "step", "step": 2, "loss": 1e99}',
        '{"type": "step", "step": -2, "loss": 1}', '{"type": "step", "step": 1e50, "loss": 1}',
        '{"type": "step", "step": 2, "loss": "\\u001b[2J"}', "[" * 100_000, "9" * 5_000,
    ],
)  # fmt: skip
def test_useless_lines_are_skipped(tmp_path: Path, line: str) -> None:
    assert run_of(tmp_path, step(1), line, step(3)).steps == (StepRow(1, 2.0), StepRow(3, 2.0))


def test_bytes_that_are_not_text_are_skipped(tmp_path: Path) -> None:
    run_of(tmp_path, step(1))
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'\n{"type": "step", "step": 2, "\xff\xfe": 1, "loss": 1.0}\n')
    assert read_run(tmp_path).last_step == 1


def test_rows_of_older_runs_lack_what_newer_ones_have(tmp_path: Path) -> None:
    run = run_of(tmp_path, step(1), step(2, grad_norm=0.5, learning_rate=0.1, new=[1]))
    assert run.steps == (StepRow(1, 2.0), StepRow(2, 2.0, learning_rate=0.1, grad_norm=0.5))


def test_after_a_rewind_the_later_row_of_a_step_counts(tmp_path: Path) -> None:
    run = run_of(
        tmp_path, step(1), step(2), {"type": "spike", "step": 3, "loss": 9.5, "z_score": 7.0},
        step(3, 9.5), {"type": "rewind", "step": 2, "skipped": 3, "reason": "the loss is nan"},
        step(2, 1.5), step(3, 1.0),
    )  # fmt: skip
    assert run.steps == (StepRow(1, 2.0), StepRow(2, 1.5), StepRow(3, 1.0))
    assert run.incidents == (SpikeRow(3, 9.5, 7.0), RewindRow(2, 3, "the loss is nan"))
    assert (
        str(run.incidents[1]) == "rewound to step 2, skipping the batch of step 3: the loss is nan"
    )


def test_samples_and_machines_are_kept_in_order(tmp_path: Path) -> None:
    run = run_of(
        tmp_path, {"type": "machine", "step": 0, "torch": "2.13.0", "threads": 2}, step(1),
        {"type": "sample", "step": 1, "text": "to b"},
        {"type": "machine", "step": 1, "torch": "2.14.0"},
        {"type": "sample", "step": 5, "text": "to be"},
    )  # fmt: skip
    assert [(sample.step, sample.text) for sample in run.samples] == [(1, "to b"), (5, "to be")]
    assert [(m.step, m.torch, m.threads) for m in run.machines] == [
        (0, "2.13.0", 2),
        (1, "2.14.0", None),
    ]


def test_best_is_the_lowest_validation_loss_and_the_first_of_equals(tmp_path: Path) -> None:
    run = run_of(
        tmp_path, *(evaluation(n, 1.0, val) for n, val in [(10, 3.0), (20, 2.5), (30, 2.5)])
    )
    assert run.best == EvaluationRow(20, val_loss=2.5, train_loss=1.0)


def test_overfitting_is_named_with_its_beginning_and_its_size(tmp_path: Path) -> None:
    found = run_of(
        tmp_path, evaluation(50, 2.0, 2.3), evaluation(100, 1.4, 2.2), evaluation(150, 0.8, 2.7),
        evaluation(200, 0.1, 2.6),
    ).overfitting  # fmt: skip
    assert found is not None
    assert (found.since, found.until) == (100, 200)
    assert found.val_rise == pytest.approx(0.4)
    assert found.train_fall == pytest.approx(1.3)
    assert str(found).startswith("overfitting since step 100: ")


@pytest.mark.parametrize(
    "last",
    [
        evaluation(200, 1.0, 2.0),  # the last is the best
        evaluation(200, 1.0, 2.105),  # within what chance does
        evaluation(200, 1.5, 2.5),  # the training loss rose too: another trouble
        {"type": "evaluation", "step": 200, "val_loss": 2.5},  # nobody knows
    ],
)
def test_other_curves_are_not_called_overfitting(tmp_path: Path, last: dict[str, Any]) -> None:
    assert run_of(tmp_path, evaluation(100, 1.4, 2.1), last).overfitting is None


def test_run_is_shown_even_when_its_configuration_is_not_ours(tmp_path: Path) -> None:
    run_of(tmp_path, step(1))
    (tmp_path / "config.toml").write_text("[model]\nn_layer = 'six'\n")
    run = read_run(tmp_path)
    assert run.config is None
    assert "model.n_layer" in str(run.config_problem)
    assert run.last_step == 1


def test_folders_without_a_run_or_without_metrics_say_which(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere: not a run folder"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "a-file").touch()
    with pytest.raises(CheckpointError, match=r"a-file: not a run folder"):
        read_run(tmp_path / "a-file")
    with pytest.raises(CheckpointError, match=r"contains no run \(neither config.toml nor metrics"):
        read_run(tmp_path)
    (tmp_path / "config.toml").touch()
    with pytest.raises(CheckpointError, match=r"without metrics .*; resume training$"):
        read_run(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    (tmp_path / "checkpoint.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"without metrics.* minigpt inspect .*/checkpoint"):
        read_run(tmp_path)


@pytest.mark.parametrize(("epochs", "named"), [(1.06, False), (1.99, False), (2.0, True)])
def test_rise_before_two_passes_is_not_called_overfitting(
    tmp_path: Path, epochs: float, named: bool
) -> None:
    last = {**evaluation(200, 0.8, 2.7), "epochs": epochs}
    run = run_of(tmp_path, evaluation(100, 1.4, 2.1), last)
    assert (run.overfitting is not None) == named
    assert run.rise is not None
    assert ("unlike the rest" in str(run.rise)) != named
