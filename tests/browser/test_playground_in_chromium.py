"""The model as a page, as Chromium runs it: it writes what the model writes, and shows why."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minigpt_cli.config.choices import TokenizerKind
from minigpt_cli.generation.sampling import Sampling, next_token_probabilities
from minigpt_cli.inspection.attention import attention_maps
from minigpt_cli.inspection.run_history import read_run
from minigpt_cli.pages.run_report import report_page
from minigpt_cli.runs.checkpoint import Checkpoint
from tests.helpers.chromium import CHROMIUM, CONTRASTS, DRIVER, requested, resize, started
from tests.helpers.playground import MODELS, greedy, random_checkpoint, round_weights, write_page

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
]
KINDS: tuple[TokenizerKind, ...] = ("char", "word", "byte", "bpe")
PROMPT = "The heron"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with started(tmp_path_factory.mktemp("profile"), "--lang=en-US") as browser:
        browser.set_script_timeout(60)
        yield browser


@pytest.fixture(scope="module")
def model(story: str) -> Checkpoint:
    return random_checkpoint(MODELS["modern"], "char", story)


def wait(browser: Any, condition: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 60, 0.05).until(lambda _: browser.execute_script(f"return {condition}"))


def opened(browser: Any, page: Path) -> None:
    for log in ("browser", "performance"):
        browser.get_log(log)  # what was said before is another page's
    browser.get(page.as_uri())
    wait(browser, "document.body.dataset.state === 'ready'")


def settings(browser: Any, **values: object) -> None:
    for name, value in values.items():
        browser.execute_script(
            "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
            "e.dispatchEvent(new Event('input'));",
            name, value,
        )  # fmt: skip


def click(browser: Any, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def write(browser: Any, prompt: str, **values: object) -> str:
    """Writes a text by the page's own controls, and returns what stands there in the end."""
    settings(browser, prompt=prompt, **values)
    click(browser, "#write")
    wait(browser, "document.body.dataset.state === 'ready' && cells.length > 0")
    text: str = browser.execute_script("return document.getElementById('text').textContent")
    return text


def bar_shares(browser: Any, which: str = "own") -> dict[int, float]:
    found = browser.execute_script(
        "return [...document.querySelectorAll('#bars button')]"
        f".map(b => [Number(b.dataset.token), Number(b.dataset.{which})])"
    )
    return {int(token): share for token, share in found}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["modern", "classic"])
def test_page_writes_what_generate_writes_past_the_window_too(
    chromium: Any, tmp_path: Path, story: str, name: str, kind: TokenizerKind
) -> None:
    checkpoint = random_checkpoint(MODELS[name], kind, story, 300 if kind == "bpe" else None)
    opened(chromium, write_page(checkpoint, tmp_path, "bf16"))
    round_weights(checkpoint, "bf16")
    for prompt in (PROMPT, ""):
        written = write(chromium, prompt, temperature=0, length=300)
        ids = checkpoint.tokenizer.encode(prompt) or checkpoint.tokenizer.start_ids
        tokens = [token for token, _ in greedy(checkpoint, ids, 300)]
        expected = checkpoint.tokenizer.decode(tokens)
        assert chromium.execute_script("return idx()") == [*ids, *tokens]
        # Control characters are shown as escapes.
        shown = chromium.execute_script("return harmless(arguments[0])", prompt + expected)
        assert written == shown
    assert chromium.get_log("browser") == []


def test_bars_are_what_inspect_next_shows(chromium: Any, tmp_path: Path, model: Checkpoint) -> None:
    opened(chromium, write_page(model, tmp_path, "int8", prompt=PROMPT))
    round_weights(model, "int8")
    wait(chromium, "document.querySelectorAll('#bars button').length > 0")
    ids = model.tokenizer.encode(PROMPT)
    logits = model.model(torch.tensor([ids]))[:, -1].detach()
    for temperature in (0.8, 2.0):
        settings(chromium, temperature=temperature, top_k=5)
        wait(chromium, f"sampling().temperature === {temperature}")
        wait(chromium, "bars.drawable === 5")
        shaped = next_token_probabilities(logits, Sampling(temperature, top_k=5))[0]
        wait(chromium, f"Math.abs(bars.rows[0].shaped - {float(shaped.max())}) < 1e-4")
        for token, share in bar_shares(chromium, "share").items():
            assert share == pytest.approx(float(shaped[token]), abs=1e-4)
    own = logits.softmax(-1)[0]
    for token, share in bar_shares(chromium).items():
        assert share == pytest.approx(float(own[token]), abs=1e-4)


def test_attention_is_what_inspect_shows(chromium: Any, tmp_path: Path, story: str) -> None:
    checkpoint = random_checkpoint(MODELS["modern"], "char", story)
    opened(chromium, write_page(checkpoint, tmp_path, "bf16"))
    round_weights(checkpoint, "bf16")
    text = write(chromium, PROMPT, temperature=0, length=60)
    click(chromium, "#look summary")
    wait(chromium, "maps !== null")
    expected = attention_maps(checkpoint, text)
    for head in expected.heads:
        number = head.layer * checkpoint.metadata.model.n_head + head.head + 1
        click(chromium, f"#heads button:nth-child({number})")
        wait(chromium, f"maps.layer === {head.layer} && maps.head === {head.head}")
        weights = np.array(chromium.execute_script("return Array.from(maps.weights)"))
        np.testing.assert_allclose(weights.reshape(head.weights.shape), head.weights, atol=1e-4)


def test_reader_takes_another_branch_and_comes_back(
    chromium: Any, tmp_path: Path, story: str
) -> None:
    checkpoint = random_checkpoint(MODELS["modern"], "char", story)
    opened(chromium, write_page(checkpoint, tmp_path, "bf16"))
    text = write(chromium, PROMPT, temperature=0, length=30)
    place = len(PROMPT) + 5
    click(chromium, f".cell:nth-of-type({place + 1})")
    wait(chromium, f"bars.index === {place} && bars.chosen === tokens[{place}].token")
    chosen = int(chromium.execute_script("return bars.chosen"))
    other = next(token for token in bar_shares(chromium) if token != chosen)
    click(chromium, f"#bars button[data-token='{other}']")
    wait(chromium, f"document.body.dataset.state === 'ready' && tokens.length === {place + 31}")
    branched = chromium.execute_script("return $('text').textContent")
    assert branched[:place] == text[:place]
    assert branched[place] == checkpoint.tokenizer.decode([other]) != text[place]
    click(chromium, "#undo")
    wait(chromium, f"tokens.length === {len(text)}")
    assert chromium.execute_script("return $('text').textContent") == text


def test_keyboard_moves_through_the_text(chromium: Any, tmp_path: Path, model: Checkpoint) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(chromium, write_page(model, tmp_path, "bf16"))
    write(chromium, PROMPT, length=20)
    text = chromium.find_element("id", "text")
    for key, place in ((Keys.ARROW_LEFT, 28), (Keys.ARROW_LEFT, 27), (Keys.ARROW_RIGHT, 28),
                       (Keys.HOME, 0), (Keys.END, 29)):  # fmt: skip
        text.send_keys(key)
        wait(chromium, f"here === {place} && bars.index === {place}")


def test_writing_can_be_stopped_and_gone_on_with(
    chromium: Any, tmp_path: Path, model: Checkpoint
) -> None:
    opened(chromium, write_page(model, tmp_path, "bf16"))
    settings(chromium, prompt=PROMPT, length=10_000)
    click(chromium, "#slow")
    click(chromium, "#write")
    wait(chromium, "document.body.dataset.state === 'writing' && cells.length > 20")
    click(chromium, "#write")
    wait(chromium, "document.body.dataset.state === 'ready'")
    stopped = chromium.execute_script("return tokens.length")
    assert stopped < 10_000
    settings(chromium, length=7)
    click(chromium, "#slow")
    click(chromium, "#more")
    wait(chromium, f"document.body.dataset.state === 'ready' && tokens.length === {stopped + 7}")


def test_tokens_that_look_like_markup_stay_text(chromium: Any, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script> <img src=x onerror=alert(1)> \u202er\u200f l \u05d0 &lt;"
    checkpoint = random_checkpoint(MODELS["modern"], "char", hostile)
    options: dict[str, Any] = {"title": hostile, "prompt": hostile}
    opened(chromium, write_page(checkpoint, tmp_path, "bf16", **options))
    written = write(chromium, hostile, length=40)
    assert written.startswith(hostile.replace("\u202e", "\\u202e"))
    assert chromium.execute_script("return document.querySelectorAll('img').length") == 0
    assert chromium.execute_script("return document.scripts.length") == 3
    assert chromium.execute_script("return document.querySelector('h1').textContent") == hostile
    assert chromium.get_log("browser") == []


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, pytest.param(768, marks=pytest.mark.slow), 1400])
def test_page_is_whole_and_readable(
    chromium: Any, tmp_path: Path, model: Checkpoint, width: int, scheme: str, language: str
) -> None:
    page = write_page(model, tmp_path, "bf16", prompt=PROMPT)
    resize(chromium, width, scheme)
    opened(chromium, page)
    if language == "zh":
        click(chromium, "#language")
    assert chromium.execute_script("return document.documentElement.lang[0]") == language[0]
    write(chromium, PROMPT, temperature=1.5, length=200)
    chromium.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    wait(chromium, "maps !== null")
    for looking in (True, False):
        chromium.execute_script("$('look').open = arguments[0]", looking)
        wait(chromium, f"$('text').classList.contains('looking') === {str(looking).lower()}")
        found = chromium.execute_script(CONTRASTS)
        assert len(found) > 150
        assert min(found)[0] >= 4.5, min(found)
    silent = "[...document.querySelectorAll('[data-words]')].filter(e => !e.textContent).length"
    assert chromium.execute_script(f"return {silent}") == 0
    root = chromium.execute_script(
        "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
    )
    assert root[0] <= root[1]
    unnamed = chromium.execute_script(
        "return [...document.querySelectorAll('button, input, textarea')].filter(e =>"
        " !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim())).length"
    )
    assert unnamed == 0
    assert chromium.get_log("browser") == []
    asked = [url for url in requested(chromium) if not url.startswith(("data:", "blob:"))]
    assert asked == [page.as_uri()]


def test_plain_writer_writes(chromium: Any, tmp_path: Path, model: Checkpoint) -> None:
    opened(chromium, write_page(model, tmp_path, "bf16", inspect=False))
    assert len(write(chromium, PROMPT, length=50)) == len(PROMPT) + 50
    assert chromium.get_log("browser") == []


def test_report_runs_the_page_behind_a_click(
    chromium: Any, trained_home: Path, tmp_path: Path, model: Checkpoint
) -> None:
    page = write_page(model, tmp_path, "bf16", prompt=PROMPT).read_text("utf-8")
    file = tmp_path / "report.html"
    run = read_run(trained_home / "runs" / "tiny")
    file.write_text(report_page(run, None, playground=page), encoding="utf-8")
    chromium.get_log("browser")
    chromium.get(file.as_uri())
    assert chromium.execute_script("return document.querySelector('iframe').loading") == "lazy"
    chromium.find_element("css selector", "details:has(iframe) > summary").click()
    chromium.execute_script("document.querySelector('iframe').scrollIntoView()")
    state = None
    for _ in range(200):  # the frame's document is replaced by the page when it is scrolled to
        chromium.switch_to.default_content()
        chromium.switch_to.frame(chromium.find_element("css selector", "iframe"))
        state = chromium.execute_script("return document.body && document.body.dataset.state")
        if state == "ready":
            break
        time.sleep(0.05)
    assert state == "ready"
    assert len(write(chromium, PROMPT, length=50)) == len(PROMPT) + 50
    chromium.switch_to.default_content()
    assert chromium.get_log("browser") == []
