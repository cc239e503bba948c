"""Training from Python: from a request to a finished run, without a terminal."""

from pathlib import Path

import pytest

from minigpt_cli.config.loading import load_run_config
from minigpt_cli.config.schema import RunConfig
from minigpt_cli.errors import CheckpointError, ConfigError, CorpusError
from minigpt_cli.runs.checkpoint import load_checkpoint
from minigpt_cli.runs.folder import RunFolder
from minigpt_cli.runs.metrics import EvaluationRow
from minigpt_cli.training.reporter import Reporter
from minigpt_cli.training.setup import train

pytestmark = pytest.mark.usefixtures("no_measuring")
SHORT: dict[str, object] = {
    "data.corpus": "story.txt", "train.max_iters": 4, "train.eval_interval": 2,
    "train.sample_tokens": 0, "train.precision": "fp32", "train.device": "cpu",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, story: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("story.txt").write_text(story, encoding="utf-8")


class Evaluations(Reporter):
    """Overrides a single method, as users do."""

    def __init__(self) -> None:
        self.rows: list[EvaluationRow] = []

    def evaluated(self, row: EvaluationRow) -> None:
        self.rows.append(row)


def test_preset_is_trained_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    reporter = Evaluations()
    result = train("tiny", SHORT, reporter=reporter)
    assert (result.run, result.step, result.finished) == (Path("runs/story"), 4, True)
    assert [row.step for row in reporter.rows] == [2, 4]
    assert result.best_val_loss == min(row.val_loss for row in reporter.rows)
    assert load_checkpoint(RunFolder(result.run).checkpoint).metadata.step == result.best_step
    assert capfd.readouterr() == ("", "")


def test_configuration_is_trained_into_the_named_folders() -> None:
    config = load_run_config("tiny", SHORT)
    result = train(config, {"train.max_iters": 2}, out="my run", data_dir="my data")
    assert (result.run, result.step) == (Path("my run"), 2)
    assert load_run_config("my run/config.toml").data == config.data
    assert [path.name for path in Path("my data").iterdir()] == ["story"]
    assert isinstance(config, RunConfig)
    assert config.train.max_iters == 4


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        ({"train.max_iters": 0}, ConfigError),
        ({"train.device": "abacus"}, ConfigError),
        ({"data.corpus": "none.txt"}, CorpusError),
        ({"model.block_size": 100_000}, CorpusError),
        ({"data.val_fraction": 1e-6}, CorpusError),
    ],
)
def test_nothing_is_created_when_a_check_fails(
    overrides: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        train("tiny", {**SHORT, **overrides}, out="run")
    assert not Path("run").exists()


def test_second_run_is_never_written_over_the_first() -> None:
    train("tiny", SHORT, out="run")
    before = RunFolder(Path("run")).metrics.read_bytes()
    with pytest.raises(CheckpointError, match="already exists and is not overwritten") as caught:
        train("tiny", SHORT, out="run")
    assert caught.value.settings == ("out",)
    assert RunFolder(Path("run")).metrics.read_bytes() == before
