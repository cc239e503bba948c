"""`train --watch`: the report follows the run, and the run does not notice."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from minigpt_cli.cli import live_report as watching
from minigpt_cli.cli.live_report import LiveReport
from minigpt_cli.cli.tracking import Tracking
from minigpt_cli.config.loading import parse_override
from minigpt_cli.data.workspace import Workspace
from minigpt_cli.runs.metrics import EvaluationRow, StepRow
from minigpt_cli.training.reporter import Reporter
from minigpt_cli.training.setup import TrainRequest, start
from minigpt_cli.training.trainer import Trainer

REFRESH = '<meta http-equiv="refresh"'


class Told(Reporter):
    """Keeps what it hears, and calls `after_step` with each step's number."""

    def __init__(self, after_step: Callable[[int], None] = lambda _: None) -> None:
        self.heard: list[str] = []
        self.notes: list[str] = []
        self._after_step = after_step

    def stepped(self, row: StepRow) -> None:
        self.heard.append(f"step {row.step}")
        self._after_step(row.step)

    def evaluated(self, row: EvaluationRow) -> None:
        self.heard.append(f"evaluation {row.step}")

    def sampled(self, text: str) -> None:
        self.heard.append("sample")

    def noted(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture
def trainer_of(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Trainer]]:
    """Makes a new run of six steps, evaluated every second one; its pictures stay unpainted."""
    monkeypatch.setattr("minigpt_cli.pages.run_report.image_bytes", lambda *_: b"")
    monkeypatch.setattr("minigpt_cli.training.trainer.matmul_flops", lambda *_: 1e12)

    held = ExitStack()

    def make(name: str, *settings: str) -> Trainer:
        overrides = {
            "data.corpus": "story.txt", "train.max_iters": 6, "train.eval_interval": 2,
            "train.log_interval": 1, "train.sample_tokens": 4, "train.device": "cpu",
            "train.precision": "fp32", **dict(map(parse_override, settings)),
        }  # fmt: skip
        request = TrainRequest("tiny", overrides, Path(name), Workspace(Path("data")))
        return held.enter_context(start(request))

    with held:
        yield make


@pytest.fixture
def no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is inside the model takes long to draw."""
    monkeypatch.setattr(watching, "look_inside", lambda _: None)


@pytest.mark.usefixtures("no_look")
@pytest.mark.parametrize("sample_tokens", [0, 4])
def test_report_is_current_after_every_evaluation(
    trainer_of: Callable[..., Trainer], sample_tokens: int
) -> None:
    trainer = trainer_of("watched", f"train.sample_tokens={sample_tokens}")
    folder = trainer.folder
    seen = {}

    def look(step: int) -> None:
        page = folder.report.read_text(encoding="utf-8") if folder.report.exists() else ""
        seen[step] = (f"<td>{step - 1} of 6</td>" in page, REFRESH in page)

    told = Told(look)
    with LiveReport(told, trainer) as watched:
        trainer.fit(watched)
    assert seen[1] == seen[2] == (False, False)  # nothing to show yet
    assert seen[3] == seen[5] == (True, True)
    page = folder.report.read_text(encoding="utf-8")
    assert "<td>6 of 6</td>" in page
    assert REFRESH not in page
    assert told.notes == [f"Follow this run in a browser: {folder.report}"]
    assert told.heard[:3] == ["step 1", "step 2", "evaluation 2"]
    assert told.heard.count("sample") == (3 if sample_tokens else 0)


def test_watched_run_is_the_same_run(trainer_of: Callable[..., Trainer]) -> None:
    plain, trainer = (
        trainer_of("plain", "model.dropout=0.2"),
        trainer_of("watched", "model.dropout=0.2"),
    )
    plain.fit(Told())
    with LiveReport(Told(), trainer) as watched:
        trainer.fit(watched)
    expected = plain.learner.model.state_dict()
    assert all(torch.equal(w, expected[n]) for n, w in trainer.learner.model.state_dict().items())


@pytest.mark.usefixtures("no_look")
def test_report_that_cannot_be_written_is_said_once_and_stops_nothing(
    trainer_of: Callable[..., Trainer],
) -> None:
    trainer = trainer_of("watched")
    trainer.folder.report.mkdir()
    told = Told()
    with LiveReport(told, trainer) as watched:
        assert trainer.fit(watched).finished
    (note,) = told.notes
    assert note.startswith("No report: watched/report.html: cannot be written")
    assert [path.name for path in trainer.folder.path.glob(".*")] == []


@pytest.mark.parametrize(("pause", "looks"), [(0, 3), (10**9, 2)])
def test_looking_inside_the_model_waits_until_it_costs_little(
    trainer_of: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch, pause: int, looks: int
) -> None:
    trainer, count = trainer_of("watched"), []
    monkeypatch.setattr(watching, "LEAST_PAUSE", pause)
    monkeypatch.setattr(watching, "look_inside", lambda folder: count.append(folder))
    with LiveReport(Told(), trainer) as watched:
        trainer.fit(watched)
    assert len(count) == looks  # the first, the last, and those between that may be


@pytest.mark.usefixtures("no_look")
def test_interrupted_run_ends_its_report_but_not_when_left_at_once(
    trainer_of: Callable[..., Trainer],
) -> None:
    trainer = trainer_of("asked")

    def stop(step: int) -> None:
        trainer.stop_requested = step == 3

    with LiveReport(Told(stop), trainer) as watched:
        assert not trainer.fit(watched).finished
    page = trainer.folder.report.read_text(encoding="utf-8")
    assert "<td>3 of 6</td>" in page
    assert REFRESH not in page

    def leave(step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    left = trainer_of("left")
    with pytest.raises(KeyboardInterrupt), LiveReport(Told(leave), left) as watched:
        left.fit(watched)
    assert REFRESH in left.folder.report.read_text(encoding="utf-8")


def test_whoever_stands_between_forwards_every_event() -> None:
    events = {name for name in vars(Reporter) if not name.startswith("_")}
    for wrapper in (LiveReport, Tracking):
        assert events <= {*vars(wrapper)}, wrapper
