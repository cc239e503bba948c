"""`minigpt export`: a model as a page, and what is refused."""

import html
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from minigpt_cli.runs.checkpoint import load_checkpoint
from tests.helpers.callers import Minigpt, Refused

TO_HTML = ("export", "--to", "html")


def description(page: Path) -> dict[str, object]:
    text = page.read_text("utf-8").split('id="description">')[1].split("</script>")[0]
    found: dict[str, object] = json.loads(text)
    return found


def test_page_of_the_newest_run(minigpt: Minigpt) -> None:
    result = minigpt(*TO_HTML, "letters.html")
    assert (result.exit_code, result.stdout) == (0, "")
    path = Path("runs/tiny/checkpoint.safetensors")
    assert f"Using {path}\n" in result.stderr
    assert "Wrote letters.html (0." in result.stderr
    found, metadata = description(Path("letters.html")), load_checkpoint(path).metadata
    assert found["val_loss"] == metadata.val_loss
    assert found["corpus"] == "story"
    assert "train.max_iters=20" in str(found["command"])
    assert (found["prompt"], found["title"], found["inspect"]) == ("", None, True)


def test_options_are_on_the_page(minigpt: Minigpt) -> None:
    options = ("--title", "Boats & lamps", "--prompt", "The", "--no-inspect", "--dtype", "int8")
    assert minigpt(*TO_HTML, "runs/tiny", "letters.html", *options).exit_code == 0
    found = description(Path("letters.html"))
    assert [found[name] for name in ("title", "prompt", "inspect", "dtype")] == [
        "Boats & lamps", "The", False, "int8",
    ]  # fmt: skip
    assert "<title>Boats &amp; lamps</title>" in Path("letters.html").read_text("utf-8")


def test_file_that_exists_is_replaced_only_by_force(minigpt: Minigpt, refused: Refused) -> None:
    Path("letters.html").write_text("mine")
    message = refused(*TO_HTML, "letters.html")
    assert message == "letters.html: already exists; add --force to overwrite it"
    assert Path("letters.html").read_text() == "mine"
    assert minigpt(*TO_HTML, "letters.html", "--force").exit_code == 0
    assert Path("letters.html").read_text("utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("limit", "dtype", "said"),  # the limit in bytes a weight
    [
        (2.0, "bf16", "try --dtype int8"),
        (1.0, "bf16", "train a smaller model"),
        (1.0, "int8", "train a smaller model"),
    ],
)
def test_model_too_large_for_a_page_is_refused_with_its_size(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, limit: float, dtype: str, said: str
) -> None:
    path = Path("runs/tiny/checkpoint.safetensors")
    weights = sum(weight.numel() for weight in load_checkpoint(path).model.parameters())
    monkeypatch.setattr("minigpt_cli.pages.playground.LARGEST_PAGE", limit * weights)
    message = refused(*TO_HTML, "runs/tiny", "letters.html", "--dtype", dtype)
    assert message.startswith(f"{path}: the page would be 0 MB in {dtype} and the limit is ")
    assert message.endswith(said)
    assert not Path("letters.html").exists()


def test_checkpoint_from_elsewhere_is_refused(refused: Refused) -> None:
    save_file({"weight": torch.zeros(2)}, "other.safetensors")
    message = refused(*TO_HTML, "other.safetensors", "letters.html")
    assert message.startswith("other.safetensors: a safetensors file, but ")
    assert refused(*TO_HTML, "story.txt", "letters.html").startswith("story.txt: ")
    assert refused(*TO_HTML, "none", "letters.html").startswith("none: no such file")


def test_place_that_cannot_be_written_is_named(refused: Refused) -> None:
    message = refused(*TO_HTML, "runs/tiny", "nowhere/letters.html")
    assert message.startswith("nowhere/letters.html: cannot be written (No such file or directory)")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--to", "html", "runs/tiny"), "must end in .html"),
        (("--to", "html", "a", "b", "c.html"), "pass at most"),
        (("--to", "html", "a.html", "--dtype", "fp32"), "use bf16 or int8"),
        (("--to", "hf", "a", "--title", "A"), "--title is only valid with --to html"),
        (("--to", "gguf", "a.gguf", "--no-inspect"), "--no-inspect is only valid with --to html"),
        (("--to", "pdf", "a.html"), "'pdf'"),
        (("a.html",), "--to"),
        (("--to", "html"), "OUTPUT"),
    ],
)
def test_usage_errors_exit_with_2(minigpt: Minigpt, arguments: tuple[str, ...], said: str) -> None:
    result = minigpt("export", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_report_has_the_same_page_inside_when_asked(minigpt: Minigpt) -> None:
    assert minigpt(*TO_HTML, "runs/tiny", "letters.html").exit_code == 0
    report = Path("runs/tiny/report.html")
    assert minigpt("inspect", "report", "runs/tiny").exit_code == 0
    assert not re.search("<iframe|<script|script-src", report.read_text("utf-8"))
    assert minigpt("inspect", "report", "runs/tiny", "--playground").exit_code == 0
    (inside,) = re.findall('sandbox="allow-scripts".* srcdoc="([^"]*)"', report.read_text("utf-8"))
    assert html.unescape(inside) == Path("letters.html").read_text("utf-8")


def test_report_refuses_a_playground_that_is_too_large(
    minigpt: Minigpt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minigpt_cli.pages.playground.LARGEST_PAGE", 1000)
    result = minigpt("inspect", "report", "runs/tiny", "--playground")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the page would be 0 MB" in result.stderr
    assert not Path("runs/tiny/report.html").exists()
