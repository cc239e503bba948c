"""How fast a model writes as a page: `python -m benchmarks.page`.

Chromium without a window opens the pages of `small` and `medium` from files and writes with them by
the page's own controls, with all that the page shows. The weights are random, which changes nothing
of the work. Needs chromium and chromedriver, and the extra `test` for selenium.
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import keep, markdown
from minigpt_cli.config.loading import load_run_config
from minigpt_cli.model.gpt import GPT
from minigpt_cli.pages.playground import PageDtype, playground_page
from minigpt_cli.runs.checkpoint import Checkpoint
from minigpt_cli.runs.checkpoint_header import CheckpointMetadata
from minigpt_cli.tokenizer.char import CharTokenizer

TOKENS, REPEATS = 500, 5
CASES: tuple[tuple[str, PageDtype, int], ...] = (
    ("small", "bf16", 2_500_000), ("small", "int8", 2_500_000), ("medium", "int8", 16_000_000),
)  # fmt: skip
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--lang=en-US",
)  # fmt: skip


def page_of(preset: str, dtype: PageDtype) -> bytes:
    """The page of a preset's model, with the vocabulary of a small English text."""
    config = load_run_config(preset)
    tokenizer = CharTokenizer(map(chr, [10, *range(32, 96)]))
    torch.manual_seed(0)
    model = GPT(config.model, tokenizer.vocab_size)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.05)
    metadata = CheckpointMetadata(
        version="0", model=config.model, vocab_size=tokenizer.vocab_size,
        tokenizer=tokenizer.to_json(), data=config.data, corpus="shakespeare", fingerprint="0",
        step=0, train_loss=None, val_loss=None, bits_per_byte=None,
    )  # fmt: skip
    checkpoint = Checkpoint(model, tokenizer, metadata)
    return playground_page(checkpoint, dtype).encode()


@contextmanager
def chromium(profile: str) -> Iterator[Any]:
    """A browser with a fresh profile."""
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    browser = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield browser
    finally:
        browser.quit()


def wait(browser: Any, state: str) -> None:
    """Returns when the page is in a state."""
    while browser.execute_script("return document.body.dataset.state") != state:
        time.sleep(0.02)


def measure(browser: Any, page: Path) -> tuple[list[float], list[float]]:
    """Seconds until the page is ready, and tokens per second, in several tries."""
    ready, speeds = [], []
    for _ in range(REPEATS):
        browser.get(page.as_uri())
        wait(browser, "ready")
        mark = browser.execute_script("return performance.getEntriesByName('ready')[0].startTime")
        ready.append(mark / 1e3)
        browser.execute_script("document.getElementById('length').value = arguments[0]", TOKENS)
        browser.execute_script("document.getElementById('write').click()")
        while not (said := _said(browser)).startswith(f"{TOKENS:,} tokens"):
            time.sleep(0.02)
        speeds.append(float(said.split(", ")[1].split(" ")[0].replace(",", "")))
    return ready, speeds


def _said(browser: Any) -> str:
    return str(browser.execute_script("return document.getElementById('status').textContent"))


def main() -> None:
    """Measures all pages, and keeps the table."""
    rows, cases = [], []
    with tempfile.TemporaryDirectory() as folder, chromium(f"{folder}/profile") as browser:
        version = browser.capabilities["browserVersion"]
        page = Path(folder) / "page.html"
        for preset, dtype, limit in CASES:
            content = page_of(preset, dtype)
            page.write_bytes(content)
            ready, speeds = measure(browser, page)
            case = {"preset": preset, "dtype": dtype, "bytes": len(content), "limit": limit}
            cases.append({**case, "ready_seconds": ready, "tokens_per_second": speeds})
            size, speed = f"{len(content) / 1e6:.1f} MB", f"{statistics.median(speeds):,.0f}"
            rows.append([f"{preset}, {dtype}", size, f"{statistics.median(ready):.2f} s", speed])
    columns = ["page", "size", "ready after", "tokens/s"]
    note = f"Chromium {version}, {TOKENS} tokens, median of {REPEATS}"
    keep("page", f"{note}\n\n{markdown(columns, rows)}", {"chromium": version, "cases": cases})


if __name__ == "__main__":
    main()
