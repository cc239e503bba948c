"""A disk that fails during a run does not end it, and is always reported."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from minigpt_cli.data.dataset import Dataset
from minigpt_cli.errors import CheckpointError
from minigpt_cli.io import atomic
from minigpt_cli.runs import checkpoint as checkpoint_module
from minigpt_cli.runs import folder as run_folder_module
from minigpt_cli.runs.checkpoint import load_checkpoint
from minigpt_cli.runs.folder import RunFolder
from minigpt_cli.runs.metrics import Row, StepRow
from minigpt_cli.runs.run import Run
from minigpt_cli.runs.writer import RunWriter
from minigpt_cli.training.learner import Learner
from minigpt_cli.training.trainer import Trainer
from tests.helpers.training import (
    EVAL_INTERVAL,
    Watcher,
    differences,
    new_trainer,
    resumed,
    small_config,
    train,
)

pytestmark = pytest.mark.usefixtures("no_measuring")
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Disk:
    """Refuses every write while `full`."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.full = False
        real_append = RunFolder.append_metrics

        def replacing(path: Path) -> object:
            if self.full:
                raise FULL
            return atomic.replacing(path)

        def append(folder: RunFolder, rows: list[Row]) -> None:
            with run_folder_module.file_errors(folder.metrics, "written"):
                if self.full:
                    raise FULL
            real_append(folder, rows)

        patch.setattr(checkpoint_module, "replacing", replacing)
        patch.setattr(run_folder_module, "replacing", replacing)
        patch.setattr(RunFolder, "append_metrics", append)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def filling(disk: Disk, from_step: int, to_step: int) -> Callable[[int], None]:
    def watch(step: int) -> None:
        disk.full = from_step <= step < to_step

    return watch


def test_disk_that_is_full_for_a_while_loses_nothing(
    dataset: Dataset, run: RunFolder, tmp_path: Path, disk: Disk
) -> None:
    (tmp_path / "whole").mkdir()
    whole = train(small_config(), dataset, RunFolder(tmp_path / "whole"))
    trainer = new_trainer(small_config(), dataset, run)
    watcher = Watcher(filling(disk, EVAL_INTERVAL - 2, 2 * EVAL_INTERVAL - 1))
    assert trainer.fit(watcher).finished
    assert len(watcher.notes) == 2, watcher.notes
    assert watcher.notes[0].startswith(f"UNSAVED: {run.path}")
    assert "No space left on device" in watcher.notes[0]
    assert watcher.notes[1] == "Saving works again."
    assert differences(trainer, whole) == []


def test_delayed_checkpoint_is_the_model_at_its_best(
    dataset: Dataset, run: RunFolder, tmp_path: Path, disk: Disk
) -> None:
    wild = "optimizer.schedule=constant", "optimizer.learning_rate=0.3", "model.dropout=0.0"
    config = small_config(*wild, "optimizer.adamw_learning_rate=0.1", "optimizer.warmup_iters=0")
    (tmp_path / "whole").mkdir()
    whole = train(config, dataset, RunFolder(tmp_path / "whole"))
    best = whole.state.best_step
    assert best < whole.state.step, "the best must be past before the disk has room again"
    trainer = new_trainer(config, dataset, run)
    trainer.fit(Watcher(filling(disk, best, best + 1)))
    assert load_checkpoint(run.checkpoint).metadata.step == best
    assert differences(trainer, whole) == []


def test_disk_that_stays_full_ends_in_an_error_with_the_last_save_intact(
    dataset: Dataset, run: RunFolder, disk: Disk
) -> None:
    trainer = new_trainer(small_config(), dataset, run)
    watcher = Watcher(filling(disk, EVAL_INTERVAL + 1, 1000))
    with pytest.raises(CheckpointError) as caught:
        trainer.fit(watcher)
    assert "No space left on device" in str(caught.value)
    assert str(caught.value).endswith(f"last saved: step {EVAL_INTERVAL}")
    assert watcher.steps[-1].step == 12  # it went on to its end all the same
    assert len(watcher.notes) == 1
    disk.full = False
    assert load_checkpoint(run.checkpoint).metadata.step == EVAL_INTERVAL
    again = resumed(small_config(), dataset, run)
    assert again.state.step == EVAL_INTERVAL
    assert again.fit(Watcher()).finished


def test_disk_that_is_full_at_the_start_ends_the_run_before_its_first_step(
    dataset: Dataset, run: RunFolder, disk: Disk
) -> None:
    disk.full = True
    watcher = Watcher()
    with pytest.raises(CheckpointError, match=r"config\.toml: cannot be written \(No space"):
        new_trainer(small_config(), dataset, run).fit(watcher)
    assert watcher.steps == []


@pytest.mark.parametrize("at", [2, EVAL_INTERVAL + 2])
def test_folder_deleted_during_a_run_is_recreated(
    dataset: Dataset, run: RunFolder, at: int
) -> None:
    trainer = new_trainer(small_config(), dataset, run)

    def delete(step: int) -> None:
        if step == at:
            shutil.rmtree(run.path)

    watcher = Watcher(delete)
    assert trainer.fit(watcher).finished
    assert any("was deleted and is recreated" in note for note in watcher.notes)
    assert watcher.notes[-1] == "Saving works again."
    assert run.config.read_text() == trainer.config.to_toml()
    assert resumed(small_config(), dataset, run).state.step == 12


def test_recreated_folder_is_complete_even_after_a_full_disk(
    dataset: Dataset, run: RunFolder, disk: Disk
) -> None:
    trainer = new_trainer(small_config(), dataset, run)

    def delete(step: int) -> None:
        if step == EVAL_INTERVAL - 1:
            shutil.rmtree(run.path)
        disk.full = step == EVAL_INTERVAL  # the folder can be made, its files not yet

    assert trainer.fit(Watcher(delete)).finished
    assert run.config.read_text() == trainer.config.to_toml()
    assert resumed(small_config(), dataset, run).state.step == 12


def test_folder_made_again_is_locked_again(dataset: Dataset, run: RunFolder) -> None:
    def delete(step: int) -> None:
        if step == 2:
            shutil.rmtree(run.path)
        if step == EVAL_INTERVAL + 1:
            with pytest.raises(CheckpointError, match="another process"), Run.existing(run):
                pass

    with Run.new("", run.path) as held:
        trainer = Trainer(Learner(small_config(), dataset), RunWriter(held))
        assert trainer.fit(Watcher(delete)).finished
    with Run.existing(run):
        pass


def test_run_whose_best_model_was_deleted_still_saves_a_model(
    dataset: Dataset, run: RunFolder
) -> None:
    wild = "optimizer.schedule=constant", "optimizer.learning_rate=0.3", "model.dropout=0.0"
    config = small_config(*wild, "optimizer.adamw_learning_rate=0.1", "optimizer.warmup_iters=0")
    trainer = new_trainer(config, dataset, run)

    def delete(step: int) -> None:
        if step == 2 * EVAL_INTERVAL + 1:
            shutil.rmtree(run.path)

    trainer.fit(Watcher(delete))
    assert trainer.state.best_step < 12, "or the best were saved anew"
    assert load_checkpoint(run.checkpoint).metadata.step == 12


def test_deleted_configuration_is_rewritten_and_loses_no_model(
    dataset: Dataset, run: RunFolder
) -> None:
    wild = "optimizer.schedule=constant", "optimizer.learning_rate=0.3", "model.dropout=0.0"
    config = small_config(*wild, "optimizer.adamw_learning_rate=0.1", "optimizer.warmup_iters=0")
    trainer = new_trainer(config, dataset, run)

    def delete(step: int) -> None:
        if step == 2 * EVAL_INTERVAL + 1:
            run.config.unlink()

    watcher = Watcher(delete)
    trainer.fit(watcher)
    assert trainer.state.best_step < 12, "or the best were saved anew"
    assert load_checkpoint(run.checkpoint).metadata.step == trainer.state.best_step
    assert watcher.notes == [f"{run.config} was deleted and is rewritten"]
    assert run.config.read_text() == config.to_toml()


def test_unreadable_folder_does_not_end_the_run(
    dataset: Dataset, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, real, lost = new_trainer(small_config(), dataset, run), Path.exists, [False]

    def exists(path: Path) -> bool:
        if lost[0] and path.is_relative_to(run.path):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(path)

    def lose(step: int) -> None:
        lost[0] = EVAL_INTERVAL <= step < 2 * EVAL_INTERVAL

    monkeypatch.setattr(Path, "exists", exists)
    watcher = Watcher(lose)
    assert trainer.fit(watcher).finished
    assert os.strerror(errno.ESTALE) in watcher.notes[0]


def test_metrics_are_synced_before_the_state_that_relies_on_them(
    dataset: Dataset, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, real = [], os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    train(small_config(), dataset, run)
    saves = [i for i, name in enumerate(synced) if name == "state.safetensors"]
    assert len(saves) == 4
    for before, save in zip([0, *saves], saves, strict=False):
        assert "metrics.jsonl" in synced[before:save]


def test_half_written_row_is_taken_back(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    run.append_metrics([StepRow(1, 2.0)])
    before = run.metrics.read_bytes()
    real_appending = run_folder_module._appending

    class Filling:
        """A file on a disk with room for three bytes more."""

        def __init__(self, file: object) -> None:
            self.file, self.room = file, 3

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

        def __enter__(self) -> "Filling":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()  # type: ignore[attr-defined]

        def write(self, data: bytes) -> int:
            if not self.room:
                raise FULL
            written: int = self.file.write(data[: self.room])  # type: ignore[attr-defined]
            self.room -= written
            return written

    with monkeypatch.context() as patch:
        patch.setattr(run_folder_module, "_appending", lambda p: Filling(real_appending(p)))
        with pytest.raises(CheckpointError, match=r"metrics\.jsonl: cannot be written \(No space"):
            run.append_metrics([StepRow(2, 2.0), StepRow(3, 2.0)])
    assert run.metrics.read_bytes() == before
