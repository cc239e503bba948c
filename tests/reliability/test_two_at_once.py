"""Two processes that want the same thing."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from minigpt_cli.data.corpora import download as download_module
from minigpt_cli.data.corpora.download import Card
from minigpt_cli.data.progress import Progress, no_progress
from minigpt_cli.runs.checkpoint_header import read_header
from minigpt_cli.runs.folder import RunFolder
from tests.helpers.programs import Program

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs kill -9")


@pytest.mark.slow
def test_a_run_folder_is_locked_by_one_process_and_freed_when_it_is_killed(
    tmp_path: Path, story: str
) -> None:
    (tmp_path / "story.txt").write_text(story, encoding="utf-8")
    run = RunFolder(tmp_path / "run")
    tiny = ["train", "--preset", "tiny", "--data", "story.txt", "--out", "run", "--device", "cpu"]
    endless = ["--max-iters", 10**6, "--set", "train.save_every_seconds=0.1"]
    with Program(tmp_path, *tiny, *endless) as first:
        assert first.wait_until(run.state.exists), first.stderr
        with Program(tmp_path, "train", "--resume", "run") as second:
            assert second.finished() == 1
            assert second.stderr.count("\n") == 1
            assert "another process is training this run" in second.stderr
        assert first.running
        first.kill()
    step = json.loads(read_header(run.state).metadata["state"])["step"]
    with Program(tmp_path, "train", "--resume", "run", "--max-iters", step + 3) as third:
        assert third.finished() == 0, third.stderr
        assert f"Resuming run at step {step:,}" in third.stderr


@pytest.mark.slow
def test_of_two_runs_started_in_one_folder_one_is_refused(tmp_path: Path, story: str) -> None:
    (tmp_path / "story.txt").write_text(story, encoding="utf-8")
    tiny = ["train", "--preset", "tiny", "--data", "story.txt", "--out", "run", "--device", "cpu"]
    short = ["--max-iters", 300, "--set", "train.sample_tokens=0"]
    with Program(tmp_path, *tiny, *short) as one, Program(tmp_path, *tiny, *short) as other:
        statuses = [one.finished(), other.finished()]
    assert sorted(statuses) == [0, 1], one.stderr + other.stderr
    refused = one if statuses[0] else other
    last = refused.stderr.splitlines()[-1]
    assert "another process is training this run" in last or "already exists" in last
    step = json.loads(read_header(RunFolder(tmp_path / "run").state).metadata["state"])["step"]
    assert step == 300


def test_a_text_tokenized_by_two_at_once_is_prepared_once(tmp_path: Path, story: str) -> None:
    (tmp_path / "long.txt").write_text(story * 1000, encoding="utf-8")
    command = ["tokenize", "long.txt", "--kind", "word", "--data-dir", "data", "--json"]
    with Program(tmp_path, *command) as one, Program(tmp_path, *command) as other:
        assert (one.finished(), other.finished()) == (0, 0), one.stderr + other.stderr
        facts = json.loads(one.stdout)
        assert json.loads(other.stdout) == facts  # the seconds it took, too
    assert {path.name for path in (tmp_path / "data" / "long").iterdir()} == {
        facts["fingerprint"], f"{facts['fingerprint']}.lock"
    }  # fmt: skip


def test_a_killed_tokenization_is_neither_trusted_nor_blocking(tmp_path: Path, story: str) -> None:
    (tmp_path / "long.txt").write_text(story * 3000, encoding="utf-8")
    data = tmp_path / "data" / "long"
    command = ["tokenize", "long.txt", "--data-dir", "data", "--json"]
    with Program(tmp_path, *command) as killed:
        assert killed.wait_until(lambda: list(data.glob(".*.part/train.bin"))), killed.stderr
        killed.kill()
    assert [path for path in data.iterdir() if path.name.endswith(".part")]
    with Program(tmp_path, *command) as again:
        assert again.finished() == 0, again.stderr
        facts = json.loads(again.stdout)
    names = {path.name for path in data.iterdir()}
    assert names == {facts["fingerprint"], f"{facts['fingerprint']}.lock"}
    folder = data / facts["fingerprint"]
    sizes = [(folder / name).stat().st_size for name in ("train.bin", "val.bin")]
    assert sizes == [facts["train_tokens"] * 2, facts["val_tokens"] * 2]
    assert sum(sizes) == 2 * len(story) * 3000


def test_a_corpus_fetched_by_two_at_once_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b"To be, or not to be.\n"
    digest = hashlib.sha256(text).hexdigest()
    card = Card("play", "A play", "play.txt", len(text), digest, "play==1", "", "", "")
    parent = os.getpid()
    to_child, to_parent = os.pipe(), os.pipe()

    def fetch(card: Card, progress: Progress) -> bytes:
        is_parent = os.getpid() == parent
        os.write((to_child if is_parent else to_parent)[1], b".")
        os.read((to_parent if is_parent else to_child)[0], 1)  # neither has found it there
        return text

    monkeypatch.setattr(download_module, "_from_url", fetch)
    child = os.fork()
    if child == 0:
        try:
            download_module.downloaded(card, tmp_path, no_progress)
            os._exit(0)
        finally:
            os._exit(1)
    file = download_module.downloaded(card, tmp_path, no_progress)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert file.read_bytes() == text
    assert list(file.parent.iterdir()) == [file]
