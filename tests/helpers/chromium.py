"""Chromium without a window, a network or a past."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


CONTRASTS = """
const channels = color => {
  const [r, g, b, a = 1] = color.match(/[\\d.]+(e-\\d+)?/g).map(Number);
  const unit = color.startsWith("color(srgb") ? 255 : 1;
  return [r * unit, g * unit, b * unit, a];
};
const luminance = rgb => {
  const [r, g, b] = rgb.slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const background = element => {
  if (!element) return [255, 255, 255];
  const [r, g, b, a] = channels(getComputedStyle(element).backgroundColor);
  const behind = a < 1 ? background(element.parentElement) : [0, 0, 0];
  return [r, g, b].map((c, i) => a * c + (1 - a) * behind[i]);
};
const texts = [...document.body.querySelectorAll("*")].filter(e =>
  e.checkVisibility() && !e.disabled &&
  [...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.textContent.trim()));
return texts.map(e => {
  const pair = [channels(getComputedStyle(e).color), background(e)].map(luminance);
  const [low, high] = pair.sort((a, b) => a - b);
  const name = `${e.tagName}.${e.className}: ${e.textContent.trim().slice(0, 40)}`;
  return [(high + 0.05) / (low + 0.05), name];
});
"""
"""The WCAG 2 contrast of every visible element that has text of its own, with its name."""


@contextmanager
def started(profile: Path, *flags: str) -> Iterator[Any]:
    """A browser with a fresh profile, which logs what it says and asks for."""
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, *flags, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = Chrome(options=options, service=Service(DRIVER))
    try:
        yield browser
    finally:
        browser.quit()


def resize(browser: Any, width: int, scheme: str, height: int = 900) -> None:
    """A window of this width, in light or dark colors."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def requested(browser: Any) -> list[str]:
    """The addresses asked for since this was last called."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
