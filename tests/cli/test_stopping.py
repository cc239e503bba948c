"""What a run says while it is stopped, and where it goes on."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.cells import cell_len
from rich.console import Console

from minigpt_cli.cli import train_progress
from minigpt_cli.cli.train_progress import TrainProgress, quit_message
from minigpt_cli.config.schema import RunConfig
from minigpt_cli.runs.folder import RunFolder


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        (20, "Quit without saving; minigpt train --resume runs/a goes on from step 20"),
        (None, "Quit, and nothing is saved."),
    ],
)
def test_the_second_ctrl_c_says_where_the_run_goes_on(saved: int | None, said: str) -> None:
    folder = RunFolder(Path("runs/a"))
    trainer = SimpleNamespace(writer=SimpleNamespace(saved_step=saved), folder=folder)
    assert quit_message(trainer) == said  # type: ignore[arg-type]


@pytest.mark.parametrize("language", ["en", "zh_CN"])
def test_the_bar_begins_where_the_run_goes_on_and_shows_the_whole_answer_to_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    monkeypatch.setenv("MINIGPT_LANG", language)
    terminal = Console(width=80, force_terminal=True, color_system=None, highlight=False)
    monkeypatch.setattr(train_progress, "err", terminal)
    progress = TrainProgress(RunConfig(), step=1234)
    with terminal.capture() as first:
        terminal.print(progress._progress.get_renderable())
    assert "1,234/5,000" in first.get()
    message = "finishing this step, saving… (again: quit without saving)"
    progress.stopping(message)
    with terminal.capture() as second:
        terminal.print(progress._progress.get_renderable())
    assert message in second.get()
    assert "━" not in second.get()
    assert max(map(cell_len, second.get().splitlines())) <= 80
