"""`minigpt train --log`: the trackers' own readers find the curves, and nothing stops a run."""

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minigpt_cli.cli import tracking
from minigpt_cli.config.schema import RunConfig
from minigpt_cli.runs.metrics import EvaluationRow, StepRow, read_rows
from minigpt_cli.runs.tensorboard import TensorBoard, _checksum
from minigpt_cli.runs.trackers import measurements
from tests.helpers.callers import Minigpt, Misused, Program, Refused

RUN = Path("tracked")
FAST = ("--data", "story.txt", "--device", "cpu", "--precision", "fp32", "--batch-size", 2,
        "--set", "train.eval_interval=4", "--set", "train.log_interval=2",
        "--set", "train.sample_tokens=8")  # fmt: skip
NAMES = {
    "train/loss", "train/learning_rate", "train/grad_norm", "train/tokens_per_second", "train/mfu",
    "val/loss", "val/bits_per_byte",
}  # fmt: skip


def train(minigpt: Minigpt, *options: object, log: str) -> str:
    result = minigpt("train", *options, "--log", log)
    assert result.exit_code == 0, result.output
    return " ".join(result.stderr.split())


def rows() -> tuple[dict[int, StepRow], dict[int, EvaluationRow]]:
    """What the run itself recorded."""
    found = [*read_rows((RUN / "metrics.jsonl").read_bytes())]
    return (
        {row.step: row for row in found if isinstance(row, StepRow)},
        {row.step: row for row in found if isinstance(row, EvaluationRow)},
    )


@pytest.fixture
def events() -> Any:
    """TensorBoard's reader."""
    reason = "needs TensorBoard: pip install 'minigpt-cli[trackers]'"
    pytest.importorskip("tensorboard", reason=reason)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(folder: Path) -> Any:
        accumulator = EventAccumulator(str(folder))
        accumulator.Reload()
        return accumulator

    return read


def curve(read: Any, name: str) -> dict[int, float]:
    points = read.Scalars(name)
    assert len({point.step for point in points}) == len(points)  # each step once
    return {point.step: point.value for point in points}


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_one_curve_of_a_resumed_run(minigpt: Minigpt, events: Any) -> None:
    train(minigpt, "--preset", "tiny", *FAST, "--max-iters", 8, "-o", RUN, log="tensorboard")
    train(minigpt, "--resume", RUN, "--max-iters", 12, log="tensorboard")
    read = events(RUN / "tensorboard")
    steps, evaluations = rows()
    assert set(read.Tags()["scalars"]) == NAMES
    assert curve(read, "train/loss") == pytest.approx({n: row.loss for n, row in steps.items()})
    losses = {n: row.val_loss for n, row in evaluations.items()}
    assert curve(read, "val/loss") == pytest.approx(losses)
    assert set(losses) == {4, 8, 12}
    texts = {tag.partition("/")[0] for tag in read.Tags()["tensors"]}
    assert texts == {"settings", "sample"}
    settings = read.Tensors("settings")[0].tensor_proto.string_val[0].decode()
    assert "max_iters = 8" in settings


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_drops_what_a_run_did_after_the_step_it_went_back_to(
    tmp_path: Path, events: Any
) -> None:
    first = TensorBoard(tmp_path / "run", RunConfig(), 0)
    for step in (1, 2, 3, 4):
        first.log(step, {"train/loss": float(step)})
    first.log(3, {"train/loss": 30.0})  # rewound to step 2
    first.log(5, {"train/loss": 50.0})
    first.close()
    again = TensorBoard(tmp_path / "run", RunConfig(), 4)  # killed, and resumed at step 4
    again.log(6, {"train/loss": 60.0})
    again.close()
    assert curve(events(tmp_path / "run"), "train/loss") == {1: 1.0, 2: 2.0, 3: 30.0, 6: 60.0}


def test_checksums_are_the_formats() -> None:
    crc = 0xE3069283  # of these digits, in the definition of CRC-32C
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert _checksum(b"123456789") == struct.pack("<I", masked)


def wandb_records() -> Iterator[Any]:
    """The records of W&B's offline files, in their order: blocks as in LevelDB's log."""
    from wandb.proto import wandb_internal_pb2

    for path in sorted(RUN.glob("wandb/offline-run-*/*.wandb")):
        data, place, held = path.read_bytes(), 7, b""
        while place + 7 <= len(data):
            if 32768 - place % 32768 < 7:
                place += 32768 - place % 32768
                continue
            _, length, kind = struct.unpack("<IHB", data[place : place + 7])
            held += data[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):  # a whole record, or the last part of one
                record = wandb_internal_pb2.Record()
                record.ParseFromString(held)
                held = b""
                yield record


@pytest.mark.filterwarnings("ignore")
def test_wandb_keeps_one_run_of_a_resumed_run_offline(program: Program) -> None:
    pytest.importorskip("wandb", reason="needs wandb: pip install 'minigpt-cli[trackers]'")
    # W&B's own process goes on after a run: a second run of the same name needs another one.
    for options in (("--preset", "tiny", *FAST, "--max-iters", 8, "-o", RUN),
                    ("--resume", RUN, "--max-iters", 12)):  # fmt: skip
        result = program("train", *options, "--log", "wandb", WANDB_MODE="offline")
        assert result.returncode == 0, result.stderr
        assert "no longer tracked" not in result.stderr
    records = [*wandb_records()]
    runs = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert len({run.run_id for run in runs}) == 1
    assert {run.display_name for run in runs} == {RUN.name}
    settings = {item.key: item.value_json for item in runs[0].config.update}
    assert json.loads(settings["train"])["max_iters"] == 8
    history: dict[int, dict[str, Any]] = {}
    for record in records:
        if record.WhichOneof("record_type") == "history":
            values = {(i.key or "/".join(i.nested_key)): i.value_json for i in record.history.item}
            assert record.history.step.num not in history
            history[record.history.step.num] = values
    steps, evaluations = rows()
    assert set(history) == {*steps, *evaluations}
    for step, row in steps.items():
        assert json.loads(history[step]["train/loss"]) == pytest.approx(row.loss)
    for step, evaluation in evaluations.items():
        assert json.loads(history[step]["val/loss"]) == pytest.approx(evaluation.val_loss)
    assert set().union(*history.values()) >= NAMES


def test_every_number_of_a_row_has_the_name_that_others_use() -> None:
    step = StepRow(1, 2.0, learning_rate=0.1, tokens_per_second=None, grad_norm=3.0)
    assert measurements(step) == {
        "train/loss": 2.0, "train/learning_rate": 0.1, "train/grad_norm": 3.0
    }  # fmt: skip
    assert measurements(EvaluationRow(1, 2.5, mfu=0.5)) == {"val/loss": 2.5, "train/mfu": 0.5}


class Broken:
    """A tracker that fails at its second call."""

    calls = 0

    def log(self, step: int, values: dict[str, float]) -> None:
        self.calls += 1
        if self.calls == 2:
            raise RuntimeError("the server\nis gone")

    def text(self, step: int, name: str, text: str) -> None: ...
    def close(self) -> None: ...


@pytest.mark.parametrize("when", ["opening", "logging"])
def test_a_failing_tracker_is_left_out_and_the_run_goes_on(
    minigpt: Minigpt, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    broken = Broken()

    def opened(*_: object) -> Broken:
        if when == "opening":
            raise OSError("the server\nis gone")
        return broken

    monkeypatch.setattr(tracking, "open_tracker", opened)
    said = train(minigpt, "--preset", "tiny", *FAST, "--max-iters", 8, "-o", RUN, log="tensorboard")
    assert said.count("tensorboard: no longer tracked (the server is gone)") == 1
    assert broken.calls == (0 if when == "opening" else 2)
    assert [*rows()[1]] == [4, 8]


def test_a_tracker_that_is_not_there_is_named_before_the_work(
    refused: Refused, misused: Misused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    message = refused("train", "--data", "story.txt", "-o", RUN, "--log", "wandb")
    assert message == "wandb is not installed; install it with: pip install 'minigpt-cli[trackers]'"
    assert not RUN.exists()
    assert "use tensorboard or wandb" in misused("train", "--log", "mlflow")
