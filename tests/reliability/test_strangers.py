"""A stranger's checkpoints, run folders and texts: nothing private read, nothing waited for."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from minigpt_cli.cli.inspect.chart import Series, chart
from minigpt_cli.config.schema import DataConfig, ModernConfig
from minigpt_cli.data.corpora.consent import check_named
from minigpt_cli.data.workspace import Workspace
from minigpt_cli.errors import CheckpointError, ConfigError, CorpusError, MinigptError
from minigpt_cli.generation.sampling import Sampling
from minigpt_cli.generation.text import generate
from minigpt_cli.inspection.attention import attention_maps
from minigpt_cli.inspection.run_history import read_run
from minigpt_cli.io.atomic import replacing
from minigpt_cli.io.regular import NotRegularError
from minigpt_cli.model.positions import RotaryPositions
from minigpt_cli.pages.run_report import report_page
from minigpt_cli.plots.attention import draw_attention
from minigpt_cli.runs import checkpoint as checkpoint_module
from minigpt_cli.runs.checkpoint import load_checkpoint
from minigpt_cli.runs.folder import RunFolder, argument
from minigpt_cli.runs.metrics import EvaluationRow, SpikeRow, StepRow, to_line
from minigpt_cli.tokenizer.bpe import BPETokenizer
from minigpt_cli.training.state import saved_run
from tests.helpers.tiny_checkpoint import SIZES, forged, tiny_checkpoint

posix = pytest.mark.skipif(os.name != "posix", reason="needs special files")
FINGERPRINT = "0123456789abcdef"


# --- What a checkpoint names -----------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    (folder / ".ssh").mkdir(parents=True)
    monkeypatch.chdir(folder)
    for path in (tmp_path / "id_rsa", folder / ".ssh" / "id_rsa", folder / "book.txt"):
        path.write_text("a private text\n" * 9)
    return folder


@pytest.mark.parametrize(
    "source", ["{outside}/id_rsa", "../id_rsa", "..", "/", ".ssh/id_rsa", "./.ssh", "linked.txt"]
)
def test_file_that_only_a_checkpoint_names_is_not_read(
    here: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "linked.txt").symlink_to(here.parent / "id_rsa")
    source = source.format(outside=here.parent)

    class Trained:
        data = DataConfig(corpus=("shakespeare", source))
        fingerprint = FINGERPRINT

    monkeypatch.setattr("minigpt_cli.data.workspace.open_corpus", None)  # would fail
    with pytest.raises(CorpusError, match="the model asks for this file, and it is") as caught:
        Workspace(Path("data")).own_dataset(Trained())
    assert caught.value.settings == ("data.corpus=FILE",)
    assert not Path("data").exists()


def test_known_visible_and_prepared_texts_are_read(here: Path) -> None:
    outside = str(here.parent / "id_rsa")
    visible = DataConfig(corpus=("shakespeare", "book.txt", str(here / "book.txt")))
    check_named(visible, FINGERPRINT, Path("data"))
    data = DataConfig(corpus=(outside,))
    check_named(data, FINGERPRINT, Path("data"), named={"data.corpus"})
    (here / "data" / "id_rsa" / FINGERPRINT).mkdir(parents=True)
    check_named(data, FINGERPRINT, Path("data"))
    for fingerprint in ("../../../here", "*", "", f"{FINGERPRINT}0"):
        with pytest.raises(CorpusError):
            check_named(data, fingerprint, Path("data"))


# --- Special files ---------------------------------------------------------------------------


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


@posix
@pytest.mark.parametrize("make", [fifo, endless])
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("metrics.jsonl", lambda folder: folder.read_metrics()),
        ("metrics.jsonl", lambda folder: folder.cut_metrics(3)),
        ("checkpoint.safetensors", lambda folder: load_checkpoint(folder.checkpoint)),
        ("state.safetensors", lambda folder: saved_run(folder.state)),
    ],
)
def test_special_file_in_a_run_folder_is_refused(
    tmp_path: Path, make: Callable[[Path], None], name: str, read: Callable[[RunFolder], object]
) -> None:
    make(tmp_path / name)
    with pytest.raises(MinigptError, match=r"cannot be read \(not a regular file\)"):
        read(RunFolder(tmp_path))


@posix
def test_metrics_are_not_appended_to_a_fifo_that_nobody_reads(tmp_path: Path) -> None:
    fifo(tmp_path / "metrics.jsonl")
    with pytest.raises(CheckpointError, match="cannot be written"):
        RunFolder(tmp_path).append_metrics([StepRow(1, 2.0)])


@posix
@pytest.mark.parametrize("make", [fifo, lambda path: os.mknod(path, stat.S_IFSOCK | 0o600)])
def test_output_never_replaces_a_special_file(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "page.html"
    make(path)
    before = path.lstat()
    with pytest.raises(NotRegularError), replacing(path):
        pass
    assert path.lstat().st_ino == before.st_ino
    assert list(tmp_path.iterdir()) == [path]


# --- Sizes -----------------------------------------------------------------------------------


def test_context_window_that_nobody_reads_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "model"
    huge = {**SIZES, "block_size": 30_000_000}
    content = tiny_checkpoint(path)
    path.write_bytes(forged(content, model={"family": "modern", **huge, "n_hidden": 2}))
    found = load_checkpoint(path)
    assert found.metadata.model.block_size == 30_000_000
    assert len("".join(generate(found, "ab", 3, Sampling()))) >= 1
    positions = found.model.position_embedding
    assert isinstance(positions, RotaryPositions)
    assert positions._cos.size(0) < 10_000
    assert found.model.new_cache(1, 5).keys.size(3) == 5


@pytest.mark.parametrize("window", [1, 7, 4096, 5000, 100_000])
def test_rotary_table_is_the_same_however_long_it_is(window: int) -> None:
    positions = RotaryPositions(4, 10_000.0, window)
    exponent = torch.tensor([0.0, 0.5], dtype=torch.float64)
    exact = torch.outer(torch.arange(4 * window, dtype=torch.float64), 10_000.0**-exponent)
    for start, length in ((0, 1), (0, min(window, 5000)), (window - 1, 1), (2 * window + 1, 1)):
        cos, _ = positions.rotary(start, length, torch.float32, torch.device("cpu"))
        wanted = exact[start : start + length].cos().float()
        assert torch.equal(cos, torch.cat((wanted, wanted), -1))


def test_file_larger_than_the_machine_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_checkpoint(tmp_path / "model")
    monkeypatch.setattr(checkpoint_module, "machine_memory", lambda: 8)
    monkeypatch.setattr(checkpoint_module, "read_tensor", None)
    with pytest.raises(CheckpointError, match="GB of memory and this machine has"):
        load_checkpoint(tmp_path / "model")


# --- Time ------------------------------------------------------------------------------------


class Counted(tuple[EvaluationRow, ...]):
    """Rows that count how often all of them are gone through."""

    passes = 0

    def __iter__(self) -> Iterator[EvaluationRow]:
        Counted.passes += 1
        return super().__iter__()


def test_report_goes_through_the_evaluations_a_few_times_and_shows_some(tmp_path: Path) -> None:
    rows = [
        row
        for step in range(2000)
        for row in (EvaluationRow(step, 2.0 + 1 / (step + 1), 2.0), SpikeRow(step, 9.0))
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(map(to_line, rows)))
    run = read_run(tmp_path)
    page = report_page(replace(run, evaluations=Counted(run.evaluations)), None)
    assert Counted.passes < 20
    assert "1000 of 2000 evaluations" in page
    assert page.count("<li>") == 1000


def test_picture_of_hundreds_of_heads_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model"
    tiny_checkpoint(path, ModernConfig(**{**SIZES, "n_head": 160, "n_embd": 320}, n_hidden=2))
    attention = attention_maps(load_checkpoint(path), "ab")
    with pytest.raises(ConfigError, match="160 heads are too many for a picture"):
        draw_attention(attention, "model")
    assert draw_attention(attention_maps(load_checkpoint(path), "ab", 0, 3), "model")


# --- Libraries -------------------------------------------------------------------------------


def test_merge_that_makes_the_library_panic_is_refused() -> None:
    import json

    saved = json.loads(BPETokenizer.train(["ab ab"], 257).to_json())["tokenizer"]
    saved["model"]["merges"] = [["é", "a"]]
    with pytest.raises(ValueError, match="a merge does not give a token"):
        BPETokenizer.from_saved(saved)


TINIEST = 5e-324


@pytest.mark.parametrize(
    "values",
    [[TINIEST, 2 * TINIEST], [0.0, TINIEST], [-1e-310, 1e-310], [1.0, 1 + 2**-52], [9e29, -9e29]],
)
@pytest.mark.parametrize("width", [1, 10, 80])
def test_chart_of_any_numbers_is_drawn(values: list[float], width: int) -> None:
    points = list(enumerate(values))
    for steps in ((0, 1), (0, 2**31 - 1)):
        assert chart([Series(points)], steps=steps, width=width, height=8, unicode=True)


def test_name_that_begins_with_a_dash_is_no_option_in_a_suggested_command() -> None:
    assert RunFolder(Path("-rf")).command("eval") == "minigpt eval ./-rf"
    assert argument(Path("--help me")) == "'./--help me'"
    assert argument(Path("runs/small")) == "runs/small"


@pytest.mark.parametrize("path", ["", ":", "."])
def test_modules_and_settings_of_the_current_folder_are_not_obeyed(
    tmp_path: Path, path: str
) -> None:
    for name in ("torch", "rich", "numpy", "matplotlib", "evil"):
        (tmp_path / f"{name}.py").write_text("open('RAN', 'w')\n")
    (tmp_path / "matplotlibrc").write_text("backend: module://evil\nfigure.facecolor: red\n")
    (tmp_path / "metrics.jsonl").write_text(to_line(StepRow(1, 2.0)) + to_line(StepRow(2, 1.0)))
    done = subprocess.run(
        [sys.executable, "-m", "minigpt_cli", "inspect", ".", "--plot", "curves.svg"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "RAN").exists()
    assert "#ff0000" not in (tmp_path / "curves.svg").read_text("utf-8")
