"""A run's report: everything known of the run is on the page, and nothing is from elsewhere."""

import base64
import html
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from minigpt_cli import __version__
from minigpt_cli.inspection.run_history import read_run
from minigpt_cli.pages import run_report as report
from minigpt_cli.pages.run_report import Inside
from minigpt_cli.runs.checkpoint import load_checkpoint
from minigpt_cli.runs.folder import RunFolder


def fill(path: Path, trained_home: Path) -> RunFolder:
    """A trained run that also has samples, a machine and a spike."""
    shutil.copytree(trained_home / "runs" / "tiny", path)
    rows = [
        {"type": "machine", "step": 0, "torch": "2.13.0", "python": "3.12.1", "threads": 2},
        {"type": "sample", "step": 10, "text": "<script>alert(1)</script>\n  & so"},
        {"type": "sample", "step": 20, "text": "second {{ text }}"},
        {"type": "spike", "step": 12, "loss": 9.0, "z_score": 7.0},
        {"type": "machine", "step": 12, "torch": "2.14.0", "device": "cuda"},
    ]
    with (path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return RunFolder(path)


@pytest.fixture(scope="module")
def whole(
    trained_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunFolder, Inside, str]:
    """A run, what is inside its model, and its page; not to change."""
    folder = fill(tmp_path_factory.mktemp("reported") / "a run", trained_home)
    inside = report.look_inside(folder)
    assert inside is not None
    return folder, inside, report.report_page(read_run(folder.path), inside)


@pytest.fixture
def folder(trained_home: Path, tmp_path: Path) -> RunFolder:
    """Such a run, to be changed."""
    return fill(tmp_path / "run", trained_home)


def page_without(folder: RunFolder) -> str:
    """The page without a look inside the model, which takes long."""
    return report.report_page(read_run(folder.path), None)


def text_of(page: str) -> str:
    """What a reader sees, without pictures and with single spaces."""
    body = page.partition("<body>")[2]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_page_tells_what_the_run_tells(whole: tuple[RunFolder, Inside, str]) -> None:
    folder, _, page = whole
    run, text = read_run(folder.path), text_of(page)
    assert run.best is not None
    assert run.config is not None
    assert f"{run.best.val_loss:.4f} at step {run.best.step}" in text
    for row in run.evaluations:
        assert f"{row.step} {row.train_loss:.4f} {row.val_loss:.4f} {row.bits_per_byte:.4f}" in text
    assert " ".join(run.config.to_toml().split()) in text
    assert f"minigpt train --preset '{folder.config}'" in text
    assert "a spike at step 12: loss 9.0000" in text
    assert "torch 2.13.0 python 3.12.1 threads 2" in text
    assert "From step 12 torch 2.14.0 device cuda" in text
    model = load_checkpoint(folder.checkpoint).model
    assert f"{sum(p.numel() for p in model.parameters()):,}" in text
    attention = [w.numel() for n, w in model.state_dict().items() if ".attention." in n]
    assert f" attention {len(attention)} {sum(attention):,} " in text


def test_samples_stand_as_they_were_written(whole: tuple[RunFolder, Inside, str]) -> None:
    _, _, page = whole
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\n  &amp; so" in page
    assert "second {{ text }}" in page
    assert "<script" not in page


def test_page_reaches_for_nothing_outside_itself(whole: tuple[RunFolder, Inside, str]) -> None:
    _, _, page = whole
    assert "default-src 'none'" in page
    sources = re.findall(r'(?:src|href)="([^"]{5})', page)
    assert len(sources) == 4  # an empty icon and three pictures
    assert set(sources) == {"data:"}


def test_pictures_are_whole_images_and_no_two_are_the_same(
    whole: tuple[RunFolder, Inside, str],
) -> None:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', whole[2])
    pictures = [imread(io.BytesIO(base64.b64decode(data))) for data in found]
    assert len(pictures) == 3
    assert all(np.ptp(picture[..., :3]) > 0.5 for picture in pictures)  # not one color
    assert len({picture.shape for picture in pictures}) == 3


def test_map_says_how_little_of_the_embeddings_it_shows(
    whole: tuple[RunFolder, Inside, str],
) -> None:
    folder, _, page = whole
    weight = load_checkpoint(folder.checkpoint).model.token_embedding.weight.detach().numpy()
    spread = np.linalg.svd(weight - weight.mean(0), compute_uv=False) ** 2
    share = spread[:2].sum() / spread.sum()
    assert f"2 of {weight.shape[1]} dimensions, with {share:.0%} of the variance" in page
    assert "only a hint" in text_of(page)


def test_no_text_brings_control_characters_into_the_page(folder: RunFolder) -> None:
    rows = [
        {"type": "sample", "step": 20, "text": "red\x1b[31m\x00\x9b\ud800 & tab\tend\n"},
        {"type": "machine", "step": 20, "platform": "\x1b]0;x\x07"},
        {"type": "rewind", "step": 10, "reason": "loss\nis \x1b[2J"},
    ]
    with folder.metrics.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    page = page_without(folder)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", page)
    assert r"red\x1b[31m\x00\x9b\ud800 &amp; tab" + "\tend\n" in page
    assert r"\x1b]0;x\x07" in page
    assert r"loss is \x1b[2J" in text_of(page)


@pytest.mark.parametrize(
    ("elapsed", "shown"),
    [(75.4, "1 min 15 s"), (100_000, "27 h 47 min"), (1e9, "277,777 h 47 min")],
)
def test_time_is_shown_however_long(folder: RunFolder, elapsed: float, shown: str) -> None:
    with folder.metrics.open("a") as file:
        row = {"type": "evaluation", "step": 30, "val_loss": 3.0, "elapsed": elapsed}
        file.write(json.dumps(row) + "\n")
    assert f"time {shown} " in text_of(page_without(folder))


def without_pictures(page: str) -> str:
    return re.sub(r"base64,[^\"]+", "", page)


def test_page_is_the_same_each_time(whole: tuple[RunFolder, Inside, str]) -> None:
    folder, inside, page = whole  # but for the last bits of what layout and drawing compute
    again = report.report_page(read_run(folder.path), inside)
    assert without_pictures(again) == without_pictures(page)


def test_only_a_page_that_goes_on_reads_itself_again(
    whole: tuple[RunFolder, Inside, str],
) -> None:
    folder, inside, ended = whole
    going = report.report_page(read_run(folder.path), inside, refresh_seconds=10)
    assert '<meta http-equiv="refresh" content="10">' in going
    assert "Still training" in text_of(going)
    assert 'http-equiv="refresh"' not in ended


def test_run_without_a_checkpoint_says_so(folder: RunFolder) -> None:
    folder.checkpoint.unlink()
    assert report.look_inside(folder) is None
    text = text_of(page_without(folder))
    assert "No checkpoint has been saved yet" in text
    assert "Attention" not in text


def test_damaged_checkpoint_is_named_and_the_rest_shown(folder: RunFolder) -> None:
    data = bytearray(folder.checkpoint.read_bytes())
    data[-1] ^= 1
    folder.checkpoint.write_bytes(data)
    page = report.report_page(read_run(folder.path), report.look_inside(folder))
    assert "damaged: its content does not match its digest" in text_of(page)
    assert page.count('src="data:image/png') == 1  # the curves


def test_damaged_configuration_is_named_and_the_rest_shown(folder: RunFolder) -> None:
    folder.config.write_text("[model]\nn_layer = 0\n")
    text = text_of(page_without(folder))
    assert "model.n_layer" in text
    assert "best validation loss" in text


def test_old_runs_without_samples_and_machine_say_so(trained_home: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_home / "runs" / "tiny", tmp_path / "old")
    metrics = tmp_path / "old" / "metrics.jsonl"
    rows = [line for line in metrics.read_text().splitlines() if '"step"' in line[:20]]
    metrics.write_text("\n".join(rows))
    folder = RunFolder(tmp_path / "old")
    text = text_of(page_without(folder))
    assert "No samples were saved" in text
    assert "did not record its hardware." in text
    inside = report.look_inside(folder)
    text = text_of(report.report_page(read_run(folder.path), inside))
    assert f"hardware. Its checkpoint was written by minigpt {__version__}." in text


def test_run_without_its_machine_names_the_version_of_its_checkpoint(
    whole: tuple[RunFolder, Inside, str], trained_home: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained_home / "runs" / "tiny", tmp_path / "old")
    metrics = tmp_path / "old" / "metrics.jsonl"
    rows = [line for line in metrics.read_text().splitlines() if '"machine"' not in line]
    metrics.write_text("\n".join(rows))
    text = text_of(report.report_page(read_run(tmp_path / "old"), whole[1]))
    assert f"Its checkpoint was written by minigpt {__version__}." in text


def test_overfitting_is_named(folder: RunFolder) -> None:
    with folder.metrics.open("a") as file:
        row = {"type": "evaluation", "step": 30, "train_loss": 0.1, "val_loss": 9.0}
        file.write(json.dumps(row) + "\n")
    assert "Overfitting since step 20: by step 30" in text_of(page_without(folder))


def test_model_with_many_heads_shows_those_of_its_last_layer(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(folder.checkpoint)  # 2 layers of 2 heads

    def titles() -> list[str]:
        axes = report._attention(checkpoint).axes
        return [one.get_title() for one in axes if one.get_title()]

    assert [title[:7] for title in titles()] == ["layer 0", "layer 0", "layer 1", "layer 1"]
    monkeypatch.setattr(report, "MOST_HEADS", 3)
    assert [title[:7] for title in titles()] == ["layer 1", "layer 1"]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100])
def test_samples_are_picked_evenly_with_both_ends(count: int) -> None:
    rows = list(range(count))
    found = report.evenly(rows, 8)
    assert len(found) == min(count, 8)
    assert found[:1] + found[-1:] == rows[:1] + rows[-1:]
    assert len(set(np.diff(found))) <= 2
