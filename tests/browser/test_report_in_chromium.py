"""The report in Chromium: complete, readable, and with nothing loaded from outside."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from matplotlib.text import Text

from minigpt_cli.inspection.embeddings import project_embeddings
from minigpt_cli.inspection.run_history import read_run
from minigpt_cli.pages import run_report as report
from minigpt_cli.pages.run_report import look_inside, report_page
from minigpt_cli.plots.canvas import DPI
from minigpt_cli.plots.embeddings import draw_embeddings
from minigpt_cli.runs.checkpoint import load_checkpoint
from minigpt_cli.runs.folder import RunFolder
from tests.helpers.chromium import CHROMIUM, CONTRASTS, DRIVER, requested, resize, started

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
]


@pytest.fixture(scope="module")
def page(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report with everything a report can contain, long words included."""
    path = tmp_path_factory.mktemp("reported") / "run"
    shutil.copytree(trained_home / "runs" / "tiny", path)
    rows = [
        {"type": "machine", "step": 0, "torch": "2.13.0", "processor": "x" * 90, "threads": 2},
        {"type": "sample", "step": 10, "text": "<img src='https://example.com/a.png'>"},
        {"type": "sample", "step": 20, "text": "long" * 60 + "\n\n第一天\ttab"},
        {"type": "spike", "step": 12, "loss": 9.0, "z_score": 7.0},
        {"type": "evaluation", "step": 30, "train_loss": 0.1, "val_loss": 9.0, "elapsed": 75.0},
    ]
    with (path / "metrics.jsonl").open("a", encoding="utf-8") as metrics:
        metrics.writelines(json.dumps(row) + "\n" for row in rows)
    file = path / "report.html"
    file.write_text(report_page(read_run(path), look_inside(RunFolder(path))), encoding="utf-8")
    return file.as_uri()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with started(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(params=[(400, "light"), (400, "dark"), (1400, "light"), (1400, "dark")], ids=str)
def shown(request: pytest.FixtureRequest, chromium: Any, page: str) -> Any:
    """The browser with the report open, at this width and in this color scheme."""
    width, scheme = request.param
    resize(chromium, width, scheme)
    for log in ("browser", "performance"):
        chromium.get_log(log)  # what was said before is another page's
    chromium.get(page)
    assert chromium.execute_script("return innerWidth") == width
    assert chromium.execute_script(f"return matchMedia('(prefers-color-scheme: {scheme})').matches")
    return chromium


def test_report_is_whole_and_readable(shown: Any) -> None:
    assert shown.get_log("browser") == []
    images = shown.execute_script(
        "return [...document.images].map(i => i.complete && i.naturalWidth)"
    )
    assert len(images) == 3
    assert all(width > 300 for width in images)
    root = shown.execute_script(
        "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
    )
    assert root[0] <= root[1]
    shown.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    found = shown.execute_script(CONTRASTS)
    assert len(found) > 40
    assert min(found)[0] >= 4.5, min(found)
    sizes = shown.execute_script(
        "return [...document.querySelectorAll('p, td, th, pre, .text, li')]"
        ".map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 12


def test_letters_in_the_maps_can_be_read(shown: Any, page: str) -> None:
    found = shown.execute_script(
        "return [...document.querySelectorAll('.map img')]"
        ".map(i => [i.alt, i.getBoundingClientRect().width / i.naturalWidth])"
    )
    path = Path(unquote(urlsplit(page).path)).parent
    checkpoint = load_checkpoint(path / "checkpoint.safetensors")
    figures = {
        "Attention": report._attention(checkpoint),
        "Embeddings": draw_embeddings(project_embeddings(checkpoint), "x", report._MAP_WIDTH),
    }
    assert {alt for alt, _ in found} == set(figures)
    for alt, scale in found:
        texts = [text for text in figures[alt].findobj(Text) if text.get_text().strip()]
        points = min(float(text.get_fontsize()) for text in texts)
        assert points * DPI / 72 * scale >= 8.99, alt


def test_report_asks_for_nothing_but_itself(shown: Any, page: str) -> None:
    asked = requested(shown)
    assert page in asked
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert [url for url in asked if url.startswith("file:")] == [page]


def test_light_and_dark_differ(chromium: Any, page: str) -> None:
    chromium.get(page)
    colors = []
    for scheme in ("light", "dark"):
        resize(chromium, 1400, scheme)
        colors.append(
            chromium.execute_script("return getComputedStyle(document.body).backgroundColor")
        )
    assert len(set(colors)) == 2
