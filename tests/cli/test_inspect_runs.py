"""`minigpt inspect RUN`: how training went, in every terminal, and how several runs compare."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from minigpt_cli.cli.inspect.chart import Series, chart
from minigpt_cli.config.schema import RunConfig
from tests.helpers.callers import Minigpt, Program, Refused
from tests.helpers.programs import on_a_terminal

RUN = Path("runs/tiny")


def rows(kind: str, run: Path = RUN) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if row["type"] == kind]


def overfitting_run(name: str, *overrides: tuple[str, str]) -> Path:
    """A run beside the trained one, with metrics that rise after step 20."""
    path = Path("runs", name)
    path.mkdir()
    config = RunConfig().to_toml()
    for old, new in overrides:
        config = config.replace(old, new)
    (path / "config.toml").write_text(config)
    losses = [(10, 3.0, 3.1), (20, 2.5, 2.75), (30, 1.0, 3.25)]
    lines = [{"type": "step", "step": step, "loss": loss, "learning_rate": 0.02,
              "tokens_per_second": 10.0, "grad_norm": 0.5} for step, loss, _ in losses]  # fmt: skip
    lines += [{"type": "evaluation", "step": step, "train_loss": train, "val_loss": val}
              for step, train, val in losses]  # fmt: skip
    lines.append({"type": "spike", "step": 30, "loss": 9.0, "z_score": 7.25})
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_folder_shows_its_run_and_says_where_it_is_best(minigpt: Minigpt) -> None:
    result = minigpt("inspect", RUN)
    best = min(rows("evaluation"), key=lambda row: row["val_loss"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"{best['val_loss']:.4f} at step {best['step']}" in result.stdout
    assert re.search(r"^steps +20 of 20 *$", result.stdout, re.MULTILINE)
    for title in ("loss, nats per token", "learning rate", "tokens/s"):
        assert re.search(rf"^{title}", result.stdout, re.MULTILINE)
    losses = [row["loss"] for row in rows("step")] + [row["val_loss"] for row in rows("evaluation")]
    labels = re.findall(r"^ *([\d.]+) │", result.stdout, re.MULTILINE)
    assert labels[0] == f"{max(losses):.3g}"
    assert labels[2] == f"{min(losses):.3g}"
    assert "\x1b" not in result.stdout


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudoterminal")
@pytest.mark.parametrize(
    ("width", "encoding"), [(40, "ascii"), (80, "utf-8"), (80, "ascii"), (200, "utf-8")]
)
def test_plot_fits_any_terminal(home: Path, width: int, encoding: str) -> None:
    options = {"COLUMNS": str(width), "PYTHONIOENCODING": encoding, "NO_COLOR": "1", "TERM": "dumb"}
    code, output = on_a_terminal("inspect", str(RUN), **options)
    text = output.decode()
    assert code == 0
    assert max(len(line) for line in text.splitlines()) <= width
    assert ("│" in text) == (encoding == "utf-8")
    assert text.isascii() == (encoding == "ascii")
    assert "?" not in text


def test_overfitting_and_incidents_are_named(minigpt: Minigpt) -> None:
    text = " ".join(minigpt("inspect", overfitting_run("over")).stdout.split())
    assert (
        "overfitting since step 20: by step 30 validation loss rose by 0.5000 while training loss "
        "fell by 1.5000"
    ) in text
    assert "a spike at step 30: loss 9.0000, 7.2 standard deviations high" in text
    assert "gradient norm" in text
    assert "overfitting" not in minigpt("inspect", RUN).stdout


def test_several_runs_compare_and_their_settings_too(minigpt: Minigpt) -> None:
    one = overfitting_run("one")
    other = overfitting_run("other", ("seed = 0", "seed = 7"), ("dropout = 0.0", "dropout = 0.1"))
    text = minigpt("inspect", one, other).stdout
    assert re.search(r"^ A +runs/one +30 +2.7500 +20 ", text, re.MULTILINE)
    assert re.search(r"^ B +runs/other +30 +2.7500 +20 ", text, re.MULTILINE)
    changed = re.findall(r"^ (\w+\.\w+) +(\S+) +(\S+) *$", text, re.MULTILINE)
    assert changed == [("model.dropout", "0.0", "0.1"), ("train.seed", "0", "7")]
    assert "B: overfitting since step 20" in text
    assert text.count("loss, nats per token") == 2
    assert "no setting differs between A, B" in minigpt("inspect", one, one).stdout


def test_json_holds_every_number(minigpt: Minigpt) -> None:
    found = json.loads(minigpt("inspect", RUN, overfitting_run("over"), "--json").stdout)
    tiny, over = found["runs"]
    assert [row["loss"] for row in tiny["steps"]] == [row["loss"] for row in rows("step")]
    assert tiny["best"]["val_loss"] == min(row["val_loss"] for row in rows("evaluation"))
    assert tiny["overfitting"] is None
    assert over["overfitting"]["since"] == 20
    assert over["incidents"] == [{"type": "spike", "step": 30, "loss": 9.0, "z_score": 7.25}]
    assert tiny["config"]["data"]["corpus"] == ["story.txt"]
    assert {"setting": "data.corpus", "values": [["story.txt"], ["shakespeare"]]} in (
        found["differences"]
    )


@pytest.mark.parametrize("name", ["a.png", "a.svg"])
def test_plot_is_drawn_into_a_file_that_is_not_overwritten(
    minigpt: Minigpt, refused: Refused, name: str
) -> None:
    result = minigpt("inspect", RUN, overfitting_run("over"), "--plot", name)
    assert (result.exit_code, result.stderr) == (0, f"Wrote {name}\n")
    data = Path(name).read_bytes()
    if name.endswith("png"):
        assert imread(name).shape[1] == 9 * 150
    else:
        assert b"<svg" in data
    assert "already exists" in refused("inspect", RUN, "--plot", name)
    assert Path(name).read_bytes() == data


def test_folders_without_a_run_or_its_metrics_are_refused(refused: Refused, home: Path) -> None:
    (home / "empty").mkdir()
    assert refused("inspect", "empty").startswith("empty: contains no run (neither")
    (RUN / "metrics.jsonl").unlink()
    message = refused("inspect", RUN)
    assert message.startswith("runs/tiny: a run without metrics (no steps in metrics.jsonl)")
    assert message.endswith("minigpt inspect runs/tiny/checkpoint.safetensors")
    missing = refused("inspect", RUN, "runs/none")
    assert missing.startswith("runs/tiny: a run without metrics")


def test_folder_and_file_do_not_mix(refused: Refused) -> None:
    message = refused("inspect", RUN, RUN / "checkpoint.safetensors")
    assert message.startswith("runs/tiny/checkpoint.safetensors: not a run folder")


def test_damaged_configuration_is_named_and_the_rest_shown(minigpt: Minigpt) -> None:
    (RUN / "config.toml").write_text("[model]\nn_layer = [\x1b]")
    result = minigpt("inspect", RUN)
    assert "not valid TOML" in result.stdout
    assert "loss, nats per token" in result.stdout
    assert "\x1b" not in result.stdout


def test_names_cannot_drive_the_terminal(minigpt: Minigpt) -> None:
    name = Path("runs/[red]x\x1b[2J")
    shutil.copytree(RUN, name)
    for arguments in ([name], [name, RUN]):
        text = minigpt("inspect", *arguments).stdout
        assert "[red]x\\x1b[2J" in text
        assert "\x1b" not in text


def test_a_run_is_shown_without_pytorch(program: Program) -> None:
    result = program("inspect", RUN, RUN, python=("-X", "importtime"))
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "minigpt_cli.inspection.run_history" in imported
    assert not imported & {"torch", "numpy", "matplotlib", "tokenizers"}
    assert result.returncode == 0


@pytest.fixture
def no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is inside the model takes long to draw."""
    monkeypatch.setattr("minigpt_cli.pages.run_report.look_inside", lambda _: None)


@pytest.mark.usefixtures("no_look")
def test_report_is_in_its_run_and_is_replaced_each_time(minigpt: Minigpt) -> None:
    for _ in range(2):
        result = minigpt("inspect", "report", RUN)
        assert (result.exit_code, result.stderr) == (0, "Wrote runs/tiny/report.html\n")
        assert "best validation loss" in result.stdout
    page = (RUN / "report.html").read_text(encoding="utf-8")
    assert "<title>runs/tiny</title>" in page
    assert 'http-equiv="refresh"' not in page
    newest = minigpt("inspect", "report")
    assert newest.stderr == "Using runs/tiny\nWrote runs/tiny/report.html\n"


@pytest.mark.usefixtures("no_look")
def test_report_elsewhere_overwrites_only_when_told(minigpt: Minigpt, refused: Refused) -> None:
    Path("mine.html").write_text("mine")
    assert "already exists" in refused("inspect", "report", RUN, "--html", "mine.html")
    assert Path("mine.html").read_text() == "mine"
    result = minigpt("inspect", "report", RUN, "--html", "mine.html", "--force", "--json")
    assert json.loads(result.stdout)["runs"][0]["path"] == str(RUN)
    assert "<title>runs/tiny</title>" in Path("mine.html").read_text(encoding="utf-8")
    assert not (RUN / "report.html").exists()


def test_report_of_what_is_no_run_is_refused_and_leaves_nothing(
    refused: Refused, minigpt: Minigpt
) -> None:
    assert refused("inspect", "report", "none").startswith("none: not a run folder")
    assert refused("inspect", "report", RUN / "checkpoint.safetensors").endswith(
        "pass one created by minigpt train"
    )
    (RUN / "metrics.jsonl").unlink()
    assert "a run without metrics" in refused("inspect", "report", RUN)
    assert not (RUN / "report.html").exists()
    assert minigpt("inspect", "report", RUN, RUN).exit_code == 2


@pytest.mark.usefixtures("no_look")
def test_report_that_cannot_be_written_says_why(refused: Refused) -> None:
    (RUN / "report.html").mkdir()
    message = refused("inspect", "report", RUN)
    assert message.startswith("runs/tiny/report.html: cannot be written")


def test_table_of_heads_says_how_to_see_one(minigpt: Minigpt) -> None:
    look = ("inspect", "attention", "old")
    last = minigpt(*look).stdout.splitlines()[-1]
    assert last == "--layer L --head H draws that head's map."
    one = minigpt(*look, "--layer", 0, "--head", 1).stdout
    assert last not in one
    assert "A row looks at its columns" in one


def drawn(points: list[tuple[float, float]], **more: Any) -> list[str]:
    options: dict[str, Any] = {"steps": (0, 10), "width": 30, "height": 5, "unicode": True}
    return chart([Series(points, **more)], **options).plain.splitlines()


def test_chart_puts_the_extremes_at_its_edges() -> None:
    lines = drawn([(0, 1.0), (10, 3.0)], line=False, mark="o")
    field = [line.partition("│")[2] for line in lines[:5]]
    assert field[0] == " " * 19 + "o"
    assert field[4].rstrip() == "o"
    assert [line.partition("│")[0].strip() for line in lines[:5]] == ["3", "", "2", "", "1"]
    assert lines[5] == " " * 9 + "└" + "─" * 20
    assert lines[6].split() == ["0", "step", "10"]


def test_constant_runs_through_the_middle_and_one_point_is_seen() -> None:
    assert [bool(line.partition("│")[2].strip()) for line in drawn([(0, 2.0), (10, 2.0)])[:5]] == [
        False, False, True, False, False,
    ]  # fmt: skip
    assert any(line.partition("│")[2].strip() for line in drawn([(5, 0.0)])[:5])


@pytest.mark.parametrize("value", [0.001, 0.0007, 0.0, 3.3, 1e-5, -2.0])
@pytest.mark.parametrize("height", [3, *range(10, 21)])
def test_constant_is_named_on_its_row(height: int, value: float) -> None:
    constant = Series([(0, value), (10, value)])
    field = chart([constant], steps=(0, 10), width=30, height=height, unicode=True, axis=False)
    lines = field.plain.splitlines()
    named = [line.partition("│")[0].strip() for line in lines]
    seen = [bool(line.partition("│")[2].strip()) for line in lines]
    assert named == [f"{value:.3g}" if there else "" for there in seen]
    assert sum(seen) == 1


def test_value_far_off_is_clipped_and_the_chart_says_so() -> None:
    series = [Series([(0, 4.0), (10, 2.0)]), Series([(0, 4.0), (5, 3.0), (10, 160_000.0)])]
    text = chart(series, steps=(0, 10), width=60, height=5, unicode=True).plain
    lines = text.splitlines()
    assert lines[0].strip() == "clipped at 4; the highest is 1.6e+05"
    assert [line.partition("│")[0].strip() for line in lines[1:6]] == ["4", "", "3", "", "2"]
    assert lines[1].rstrip()[-1] != "│"  # it runs along the top
    assert "clipped" not in chart(series[:1], steps=(0, 10), width=60, height=5, unicode=True).plain
