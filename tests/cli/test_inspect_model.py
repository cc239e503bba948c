"""`minigpt inspect` of a model: five views, each as a table, as JSON and as a picture."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from minigpt_cli.cli.app import app
from minigpt_cli.cli.console import out
from minigpt_cli.inspection.attention import attention_maps
from minigpt_cli.runs.checkpoint import load_checkpoint
from tests.helpers.callers import Minigpt, Misused, Refused

FILE = "runs/tiny/checkpoint.safetensors"
TEXT = "The old heron"
VIEWS: dict[str, tuple[str, ...]] = {
    "attention": ("attention", TEXT),
    "one head": ("attention", TEXT, "--layer", "1", "--head", "0"),
    "embeddings": ("embeddings",),
    "shapes": ("shapes",),
    "gradients": ("gradients",),
    "next": ("next", TEXT),
}
every_view = pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)


def json_of(minigpt: Minigpt, *arguments: str) -> Any:
    result = minigpt("inspect", *arguments, "-c", FILE, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


@every_view
def test_a_view_is_a_table_without_color_and_a_picture(
    minigpt: Minigpt, view: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = minigpt("inspect", *view, "-c", FILE)
    drawn = minigpt("inspect", *view, "-c", FILE, "--plot", "p.png")
    assert plain.exit_code == drawn.exit_code == 0
    assert plain.stdout == drawn.stdout
    assert "\x1b" not in plain.stdout
    assert (plain.stderr, drawn.stderr) == ("", "Wrote p.png\n")
    with Image.open("p.png") as image:
        image.verify()
        assert min(image.size) > 500


@every_view
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_view_fits_80_columns_of_any_terminal(
    home: Path, view: tuple[str, ...], encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out, "width", 80)
    shown = CliRunner(charset=encoding).invoke(app, ["inspect", *view, "-c", FILE])
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert shown.stdout.isascii() == (encoding == "ascii")


@every_view
def test_another_programs_file_is_refused(refused: Refused, view: tuple[str, ...]) -> None:
    save_file({"w": torch.zeros(2)}, "foreign.safetensors")
    message = refused("inspect", *view, "-c", "foreign.safetensors")
    assert message.startswith(
        "foreign.safetensors: a safetensors file, but not a minigpt checkpoint"
    )


@pytest.mark.parametrize("view", ["attention", "shapes", "next"])
def test_text_that_cannot_be_read_is_refused(refused: Refused, view: str) -> None:
    assert "'☃' (U+2603)" in refused("inspect", view, "The ☃", "-c", FILE)
    if view != "shapes":
        assert "the text is empty" in refused("inspect", view, "", "-c", FILE)


@pytest.mark.parametrize("view", ["attention", "shapes", "next"])
def test_text_longer_than_the_window_is_noted(minigpt: Minigpt, story: str, view: str) -> None:
    result = minigpt("inspect", view, story[:50], "-c", FILE)
    assert result.stderr == (
        "The text is longer than the model's window: it reads the last 32 tokens, without the "
        "first 18.\n"
    )


# --- Attention ------------------------------------------------------------------------------


def test_attention_json_holds_the_weights(minigpt: Minigpt) -> None:
    found = json_of(minigpt, *VIEWS["attention"])
    expected = attention_maps(load_checkpoint(Path(FILE)), TEXT)
    assert "".join(found["tokens"]) == TEXT
    for head, known in zip(found["heads"], expected.heads, strict=True):
        assert (head["layer"], head["head"]) == (known.layer, known.head)
        assert head["weights"] == known.weights.tolist()


def test_attention_table_agrees_with_the_json(minigpt: Minigpt) -> None:
    found = json_of(minigpt, *VIEWS["attention"])
    rows = minigpt("inspect", *VIEWS["attention"], "-c", FILE).stdout.splitlines()
    for head in found["heads"]:
        assert any(
            row.split() == [
                str(head["layer"]), str(head["head"]), f"{head['distance']:.1f}",
                f"{head['entropy']:.2f}", "bits", f"{head['on_itself']:.0%}",
                f"{head['on_previous']:.0%}", f"{head['on_first']:.0%}",
            ]
            for row in rows
        )  # fmt: skip


def test_map_of_one_head_is_shaded_by_its_weights(minigpt: Minigpt) -> None:
    (head,) = json_of(minigpt, *VIEWS["one head"])["heads"]
    lines = minigpt("inspect", *VIEWS["one head"], "-c", FILE).stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("  T h e ␣"))
    shade = {"█": 0.5, "▓": 0.25, "▒": 0.1, "░": 0.02, " ": 0.0}
    above = {"█": 1.01, "▓": 0.5, "▒": 0.25, "░": 0.1, " ": 0.02}
    for i, char in enumerate(TEXT):
        row = lines[start + 1 + i]
        assert row[0] == char.replace(" ", "␣")
        cells = row[2:].ljust(2 * (i + 1))
        assert len(cells) == 2 * (i + 1)
        for j in range(i + 1):
            assert shade[cells[2 * j]] <= head["weights"][i][j] < above[cells[2 * j]]


@pytest.mark.parametrize("option", ["--layer", "--head"])
def test_layer_or_head_out_of_range_says_how_many_there_are(refused: Refused, option: str) -> None:
    message = refused("inspect", "attention", TEXT, "-c", FILE, option, 2)
    assert message == f"{option[2:]} 2: the model has 2 {option[2:]}s, 0 to 1"


# --- The others -----------------------------------------------------------------------------


def test_embeddings_table_lists_each_tokens_neighbors(minigpt: Minigpt) -> None:
    found = json_of(minigpt, "embeddings")
    text = minigpt("inspect", "embeddings", "-c", FILE).stdout
    for point in found["points"]:
        name = {" ": "␣", "\n": "↵"}.get(point["token"], point["token"])
        (row,) = re.findall(rf"^ {re.escape(name)} .*", text, re.MULTILINE)
        shown = re.findall(r"(\S) (-?\d\.\d\d)", row)
        assert [cosine for _, cosine in shown] == [f"{n['cosine']:.2f}" for n in point["neighbors"]]


@pytest.mark.parametrize(
    ("arguments", "tokens"),
    [((), 32), ((TEXT,), 13), (("",), 32), (("-c", FILE, TEXT), 13)],
)
def test_shapes_need_no_text(minigpt: Minigpt, arguments: tuple[str, ...], tokens: int) -> None:
    result = minigpt("inspect", "shapes", *arguments, "--json")
    assert json.loads(result.stdout)["tokens"] == tokens


def test_shapes_table_adds_up(minigpt: Minigpt) -> None:
    lines = minigpt("inspect", "shapes", "-c", FILE).stdout.splitlines()
    counts = [
        int(found[1].replace(",", ""))
        for line in lines
        if (
            found := re.search(
                r"(?<![\d.x])([\d,]+) +(?:[\d.]+ [kM] +)?[\d.]+ (?:k?B|bytes) *$", line
            )
        )
    ]
    model = load_checkpoint(Path(FILE)).model
    assert counts[-1] == sum(counts[:-1]) == sum(p.numel() for p in model.parameters())
    assert any(line.startswith(" block 1, same") for line in lines)


def test_gradients_say_what_was_found(minigpt: Minigpt) -> None:
    found = json_of(minigpt, "gradients")
    text = minigpt("inspect", "gradients", "-c", FILE).stdout
    assert found["step"] == 21
    for one in found["parameters"]:
        row = re.search(rf" {re.escape(one['name'].removesuffix('.weight'))} .*", text)
        assert row
        assert f"{one['gradient_norm']:.3g}" in row[0]
        assert f"{one['ratio']:.3g}" in row[0]
    count = len(found["parameters"])
    assert (
        f"Global gradient norm {found['norm']:.3g}; none dead or exploding among {count} parameters"
    ) in text


def test_gradients_need_the_models_own_text(refused: Refused) -> None:
    Path("story.txt").write_text("Another text.", encoding="utf-8")
    shutil.rmtree("data")
    assert "the text has changed" in refused("inspect", "gradients", "-c", FILE)


def test_gradients_of_a_checkpoint_alone_are_of_its_runs_batch(minigpt: Minigpt) -> None:
    shutil.copy(FILE, "alone.safetensors")
    result = minigpt("inspect", "gradients", "-c", "alone.safetensors")
    assert result.stderr == ""
    assert result.stdout == minigpt("inspect", "gradients", "-c", FILE).stdout


def test_next_is_the_distribution_at_three_temperatures_with_the_cuts(minigpt: Minigpt) -> None:
    options = ("--top-k", "2", "--top-p", "0.5", "--top", "4")
    found = json_of(minigpt, "next", TEXT, *options)
    known = load_checkpoint(Path(FILE))
    logits = known.model(torch.tensor([known.tokenizer.encode(TEXT)]))[0, -1].detach()
    order = logits.argsort(descending=True)[:4].tolist()
    assert found["tokens"] == [known.tokenizer.decode([token]) for token in order]
    assert [choice["temperature"] for choice in found["choices"]] == [0.5, 1.0, 2.0]
    for choice in found["choices"]:
        likely = (logits / choice["temperature"]).softmax(-1)[order].tolist()
        assert choice["probabilities"] == pytest.approx(likely, rel=1e-4)
        assert [cut["setting"] for cut in choice["cuts"]] == ["top-k 2", "top-p 0.5"]
    text = minigpt("inspect", "next", TEXT, "-c", FILE, "--top-k", "2", "--top", "4").stdout
    shares = [choice["cuts"][0]["probability"] for choice in found["choices"]]
    (row,) = (line for line in text.splitlines() if line.startswith(" top-k 2"))
    assert re.findall(r"keeps 2, ([\d.]+%)", row) == [f"{share:.1%}" for share in shares]
    rows = [line for line in text.splitlines() if line.startswith(" '")]
    assert "░" not in "".join(rows[:1])
    assert "█" not in "".join(rows[2:])


@pytest.mark.parametrize(
    ("option", "value"), [("--top-k", 0), ("--top-p", 1.5), ("--top-p", 0), ("--top", 0)]
)
def test_impossible_cut_is_named(misused: Misused, option: str, value: float) -> None:
    said = misused("inspect", "next", TEXT, "-c", "none", option, value)
    assert option.strip("-").replace("-", "_") in said.replace("-", "_")
