"""The layout of all pages: nothing from elsewhere, and values that cannot become markup."""

import re

import pytest
from jinja2 import DictLoader, UndefinedError

from minigpt_cli.pages import render as pages


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of its own beside the packaged base."""
    source = (
        '{% extends "base.html.jinja" %}{% block title %}{{ name }}{% endblock %}'
        "{% block content %}<p>{{ said }}</p>{% endblock %}"
    )
    packaged = pages._environment()
    assert packaged.loader is not None
    base, _, _ = packaged.loader.get_source(packaged, "base.html.jinja")
    loader = DictLoader({"base.html.jinja": base, "own.html.jinja": source})
    monkeypatch.setattr(pages, "_environment", lambda: packaged.overlay(loader=loader))


def test_values_are_escaped_wherever_they_appear(page: None) -> None:
    found = pages.render("own.html.jinja", name="</title><b>", said="<script>'\"&")
    assert "<title>&lt;/title&gt;&lt;b&gt;</title>" in found
    assert "<h1>&lt;/title&gt;&lt;b&gt;</h1>" in found
    assert "<p>&lt;script&gt;&#39;&#34;&amp;</p>" in found


def test_half_a_character_does_not_stop_the_page(page: None) -> None:
    assert r"<p>a\ud800b</p>" in pages.render("own.html.jinja", name="n", said="a\ud800b")


def test_missing_value_is_a_bug_and_not_a_gap(page: None) -> None:
    with pytest.raises(UndefinedError, match="said"):
        pages.render("own.html.jinja", name="n")


def test_page_loads_nothing_from_outside(page: None) -> None:
    found = pages.render("own.html.jinja", name="n", said="s")
    assert "default-src 'none'" in found
    assert not re.search(r"https?:|//[a-z]|@import|<script|url\(", found)
