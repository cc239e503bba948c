"""A process that ends at any call of the file system leaves the old file or the new one."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from minigpt_cli.config.schema import DataConfig
from minigpt_cli.data.corpora.corpus import Corpus
from minigpt_cli.data.corpora.sources import TextFile
from minigpt_cli.data.dataset import Dataset, prepare_dataset
from minigpt_cli.io.atomic import sweep
from minigpt_cli.runs.checkpoint import load_checkpoint, read_tensors, write_tensors
from minigpt_cli.runs.folder import RunFolder
from minigpt_cli.runs.metrics import SampleRow
from minigpt_cli.runs.run import Run
from tests.helpers.crashing import crash_at_every_call
from tests.helpers.training import Watcher, differences, resumed, small_config, train, train_until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(autouse=True)
def _no_syncing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `fsync` free: a process that ends loses nothing it wrote, so only the call counts."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def assert_old_or_new(
    path: Path,
    old: bytes | None,
    write: Callable[[], None],
    read: Callable[[Path], object] = Path.read_bytes,
) -> None:
    """Cuts `write` short everywhere: `path` holds `old` or what a complete `write` leaves."""
    seen: list[object] = []

    def prepare() -> None:
        shutil.rmtree(path.parent)
        path.parent.mkdir()
        if old is not None:
            path.write_bytes(old)

    def check() -> None:
        seen.append(read(path) if path.exists() else None)
        write()  # the next one succeeds
        assert read(path) == new
        sweep(path.parent, path.name)
        assert list(path.parent.iterdir()) == [path]

    prepare()
    before = None if old is None else read(path)
    write()
    new = read(path)
    points = crash_at_every_call(prepare, write, check)
    changed = seen.index(new)
    assert 3 < changed <= points
    assert seen == [before] * changed + [new] * (points + 1 - changed)


def content(path: Path) -> object:
    """The verified content of a safetensors file, whose metadata has no fixed order."""
    tensors, metadata = read_tensors(path)
    return {name: tensor.tolist() for name, tensor in tensors.items()}, metadata


@pytest.mark.slow
@pytest.mark.parametrize("exists", [True, False], ids=["old", "none"])
def test_tensors_are_the_old_ones_or_the_new_ones(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "run" / "state.safetensors"
    path.parent.mkdir()
    write_tensors(path, {"w": torch.arange(50.0)}, {"step": "1"})
    old = path.read_bytes() if exists else None
    new = {"w": torch.arange(60.0), "empty": torch.zeros(0)}
    assert_old_or_new(path, old, lambda: write_tensors(path, new, {"step": "2"}), content)


@pytest.mark.slow
@pytest.mark.parametrize("old", [b"old = 1\n", None], ids=["old", "none"])
def test_a_configuration_is_the_old_one_or_the_new_one(run: RunFolder, old: bytes | None) -> None:
    assert_old_or_new(run.config, old, lambda: run.write_config("new = 2\n# 中文\n"))


def test_metrics_are_cut_completely_or_not_at_all(run: RunFolder) -> None:
    old = b'{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st'
    assert_old_or_new(run.metrics, old, lambda: run.cut_metrics(2))
    assert run.metrics.read_bytes() == b'{"step": 1}\n{"step": 2}\n'


def test_a_line_of_metrics_is_whole_or_cut_away(run: RunFolder) -> None:
    rows = [SampleRow(1, "中文"), SampleRow(2, "[/b]")]
    seen = []

    def prepare() -> None:
        run.metrics.unlink(missing_ok=True)
        run.append_metrics(rows[:1])

    def check() -> None:
        run.cut_metrics(2)
        seen.append(run.read_metrics())

    points = crash_at_every_call(prepare, lambda: run.append_metrics(rows[1:]), check)
    assert seen == [rows[:1]] * points + [rows]


@pytest.mark.slow
def test_a_dataset_is_whole_or_not_there(tmp_path: Path, story: str) -> None:
    text = tmp_path / "story.txt"
    text.write_text(story, encoding="utf-8")
    data_dir = tmp_path / "data"

    def prepared() -> Dataset:
        return prepare_dataset(Corpus("story", (TextFile(text),)), DataConfig(), data_dir)

    def prepare() -> None:
        shutil.rmtree(data_dir)

    def check() -> None:
        dataset = prepared()
        assert dataset.tokenizer.decode(dataset.tokens("all")) == story
        names = {path.name for path in dataset.folder.parent.iterdir()}
        assert names == {dataset.folder.name, f"{dataset.folder.name}.lock"}

    def act() -> None:
        prepared()

    prepared()
    assert crash_at_every_call(prepare, act, check) > 15


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))  # the longest test: workers share it
@pytest.mark.usefixtures("no_measuring")
def test_a_run_resumes_exactly_from_every_instant_of_its_saves(
    tmp_path: Path, dataset: Dataset, run: RunFolder, part: int
) -> None:
    (tmp_path / "whole").mkdir()
    whole = train(small_config(), dataset, RunFolder(tmp_path / "whole"))
    train_until(9, "asked", small_config(), dataset, run)
    shutil.copytree(run.path, tmp_path / "at9")
    trainer = resumed(small_config(), dataset, run)
    seen = set()

    def prepare() -> None:
        shutil.rmtree(run.path)
        shutil.copytree(tmp_path / "at9", run.path)

    def act() -> None:
        trainer.fit(Watcher(lambda step: setattr(trainer, "stop_requested", step == 11)))

    def check() -> None:
        saved = json.loads(read_tensors(run.state)[1]["state"])["step"]
        seen.add((load_checkpoint(run.checkpoint).metadata.step, saved))
        with Run.existing(run):
            again = resumed(small_config(), dataset, run)
            assert again.fit(Watcher()).finished
        assert differences(again, whole) == []
        assert {path.name for path in run.path.iterdir()} == {
            "checkpoint.safetensors", "state.safetensors", "metrics.jsonl", "config.toml",
            "run.lock",
        }  # fmt: skip

    assert crash_at_every_call(prepare, act, check, part, parts=4) > 30
    assert seen == {(5, 9), (10, 9), (10, 10), (10, 11)}
