"""Run folders: named without overwriting, found again, and whole whatever happens."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minigpt_cli.errors import CheckpointError
from minigpt_cli.runs.folder import RunFolder, find_checkpoint, newest
from minigpt_cli.runs.metrics import Row, SampleRow, StepRow
from minigpt_cli.runs.run import Run, create_folder

needs_full_disk = pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="needs the device that is always full"
)


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return create_folder("tiny", tmp_path / "run")


def saved_run(name: str, when: int) -> Path:
    path = Path("runs", name, "checkpoint.safetensors")
    path.parent.mkdir(parents=True)
    path.touch()
    os.utime(path, (when, when))
    return path


def test_runs_are_numbered_and_never_shared() -> None:
    names = [create_folder("tiny", None).path for _ in range(3)]
    assert names == [Path("runs/tiny"), Path("runs/tiny-2"), Path("runs/tiny-3")]
    assert all(path.is_dir() for path in names)


def test_empty_folder_may_be_named_and_a_used_one_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "folder"
    assert create_folder("tiny", out).path == out
    assert create_folder("tiny", out).path == out
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"not overwritten; choose another run folder$"):
        create_folder("tiny", out)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    RunFolder(out).state.touch()
    with pytest.raises(CheckpointError, match=r"not overwritten; .*minigpt train --resume"):
        create_folder("tiny", out)


def test_file_in_the_folders_place_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "out"
    file.write_text("mine")
    with pytest.raises(CheckpointError, match="already exists"):
        create_folder("tiny", file)
    with pytest.raises(CheckpointError, match=r"cannot be created .*choose another run folder"):
        create_folder("tiny", file / "inside")
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(CheckpointError, match=r"cannot be created .*choose another run folder"):
        create_folder("tiny", None)


def test_newest_run_is_the_one_written_last() -> None:
    saved_run("early", 100)
    late = saved_run("late", 300)
    saved_run("middle", 200)
    (Path("runs") / "empty").mkdir()
    assert newest("checkpoint.safetensors").checkpoint == late
    assert find_checkpoint(None) == (late, True)
    assert find_checkpoint(Path("checkpoint.safetensors")) == (late, True)


def test_a_named_checkpoint_is_taken_as_named() -> None:
    run = saved_run("early", 100)
    saved_run("late", 300)
    assert find_checkpoint(run) == (run, False)
    assert find_checkpoint(run.parent) == (run, False)
    assert find_checkpoint(Path("other.safetensors")) == (Path("other.safetensors"), False)
    here = Path("checkpoint.safetensors")
    here.touch()
    assert find_checkpoint(here) == (here, False)


def test_no_run_at_all_says_how_to_make_one() -> None:
    with pytest.raises(CheckpointError, match="minigpt train --preset small"):
        find_checkpoint(None)


def test_metrics_are_one_object_a_line(run: RunFolder) -> None:
    rows: list[Row] = [StepRow(1, 2.5), SampleRow(2, "中文\n")]
    run.append_metrics(rows[:1])
    run.append_metrics(rows[1:])
    lines = run.metrics.read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["type"] for line in lines[:-1]] == ["step", "sample"]
    assert json.loads(lines[1]) == {"type": "sample", "step": 2, "text": "中文\n"}
    assert run.read_metrics() == rows
    assert lines[-1] == ""


@pytest.mark.parametrize("broken", ["", '{"step": 3, "lo', "3\n", '{"other": 1}\n', "\xff\n"])
def test_cut_metrics_keeps_what_came_before_the_step_and_drops_the_rest(
    run: RunFolder, broken: str
) -> None:
    run.metrics.write_text("".join(f'{{"step": {step}}}\n' for step in (1, 2, 3)))
    with run.metrics.open("a", encoding="latin-1") as file:
        file.write(broken)
    run.cut_metrics(2)
    assert run.metrics.read_text() == '{"step": 1}\n{"step": 2}\n'
    assert [path.name for path in run.path.iterdir()] == ["metrics.jsonl"]


def test_cut_metrics_of_a_run_without_any_is_nothing(run: RunFolder) -> None:
    run.cut_metrics(5)
    assert run.metrics.read_text() == ""


def test_config_is_replaced_whole_or_not_at_all(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.write_config("old")
    run.write_config("new")
    assert run.config.read_text() == "new"

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(CheckpointError, match=r"config\.toml: cannot be written \(No space"):
        run.write_config("newer")
    assert run.config.read_text() == "new"
    assert [path.name for path in run.path.iterdir()] == ["config.toml"]


@needs_full_disk
def test_full_disk_is_explained(run: RunFolder) -> None:
    run.metrics.symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: cannot be written .*free some"):
        run.append_metrics([StepRow(1, 2.0)])


@pytest.mark.skipif(os.name != "posix", reason="needs symbolic links")
def test_runs_that_lead_nowhere_are_a_mistake_and_no_endless_search() -> None:
    Path("runs").symlink_to("/nonexistent/folder")
    with pytest.raises(CheckpointError, match=r"cannot be created .*choose another run folder"):
        create_folder("tiny", None)


def test_a_run_is_trained_by_one_process_at_a_time(run: RunFolder) -> None:
    run.state.touch()
    taken = pytest.raises(CheckpointError, match="another process is training this run")
    with Run.existing(run), taken, Run.existing(RunFolder(run.path)):
        raise AssertionError
    with Run.existing(run):
        pass


def test_a_process_that_dies_leaves_no_lock_behind(run: RunFolder) -> None:
    run.state.touch()
    program = f"""
import os
from pathlib import Path
from minigpt_cli.runs.folder import RunFolder
from minigpt_cli.runs.run import Run
with Run.existing(RunFolder(Path({str(run.path)!r}))):
    print("locked", flush=True)
    input()
    os._exit(9)
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(CheckpointError, match="another process"), Run.existing(run):
            raise AssertionError
        other.communicate(b"\n")
    assert other.returncode == 9
    with Run.existing(run):
        pass


def test_resuming_what_is_not_a_run_leaves_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("none", "folder"):
        nothing = pytest.raises(CheckpointError, match="nothing to resume")
        with nothing, Run.existing(RunFolder(tmp_path / name)):
            raise AssertionError
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_only_what_a_killed_run_left_is_swept(run: RunFolder) -> None:
    run.state.touch()
    left = run.path / f".{run.state.name}.abcd1234.part"
    left.mkdir()
    (left / "half").write_bytes(b"...")
    theirs = [run.path / name for name in (".x.part", ".notes.part", f".{run.state.name}.a.part")]
    theirs[0].mkdir()
    theirs[1].write_text("mine")
    theirs[2].mkdir()
    with Run.existing(run):
        assert not left.exists()
        assert all(path.exists() for path in theirs)


@pytest.mark.parametrize("rows", ["", '{"type": "machine", "step": 0}\n'])
def test_folder_of_a_run_that_never_began_may_be_taken(tmp_path: Path, rows: str) -> None:
    with Run.new("tiny", tmp_path / "run") as old:
        old.folder.write_config("old")
        old.folder.metrics.write_text(rows)
    with Run.new("tiny", tmp_path / "run") as again:
        assert not again.folder.metrics.exists()


def test_curves_of_a_run_whose_model_was_deleted_are_not_overwritten(tmp_path: Path) -> None:
    with Run.new("tiny", tmp_path / "run") as old:
        old.folder.write_config("old")
        old.folder.append_metrics([StepRow(1, 2.0)])
    with pytest.raises(CheckpointError, match="already exists and is not overwritten"):
        create_folder("tiny", tmp_path / "run")
