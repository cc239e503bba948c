"""The model as a page computes what the model computes, and carries nothing that could do harm."""

import base64
import hashlib
import html
import json
import random
import re
import shlex
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minigpt_cli.config.choices import TokenizerKind
from minigpt_cli.config.loading import load_run_config, parse_override
from minigpt_cli.config.schema import ClassicConfig, DataConfig, ModernConfig
from minigpt_cli.generation.sampling import Sampling, next_token_probabilities
from minigpt_cli.inspection.attention import attention_maps
from minigpt_cli.pages import playground
from minigpt_cli.pages.playground import PageDtype, playground_page
from minigpt_cli.runs.checkpoint import Checkpoint
from minigpt_cli.tokenizer.base import SPLITTINGS
from tests.helpers.playground import (
    MODELS,
    NODE,
    ask,
    greedy,
    random_checkpoint,
    round_weights,
    write_page,
)

needs_node = pytest.mark.skipif(NODE is None, reason="needs node")
ROOT = Path(__file__).parents[2]
KINDS: tuple[TokenizerKind, ...] = ("char", "word", "byte", "bpe")
HOSTILE = (
    "<script>alert(1)</script> </SCRIPT > <!-- --> &amp; ]]>",
    "\u202eright to left\u202c \u200f\u05d0\u05d1 \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "don't they'll I'M we've  two  spaces\t\ttabs\r\n\r\n  end   ",
    "\ufeffbom \x00\x1c\x1d\x85\xa0\u2003\u3000space",
    "一二三，四五。 第１２章 Ⅷ ½ ²",
    "e\u0301 \u0928\u092e\u0938\u094d\u0924\u0947 👩‍👩‍👧 🏳️‍🌈 𝒳",
    "__init__ snake_case 3.14 1,000",
    "",
)


@needs_node
@pytest.mark.parametrize("dtype", ["bf16", "int8"])
@pytest.mark.parametrize("name", MODELS)
def test_engine_computes_what_the_model_computes(
    tmp_path: Path, story: str, name: str, dtype: PageDtype
) -> None:
    checkpoint = random_checkpoint(MODELS[name], "char", story)
    page = write_page(checkpoint, tmp_path, dtype)
    round_weights(checkpoint, dtype)
    text = story[:31]
    ids = checkpoint.tokenizer.encode(text)
    logits, attention = ask(page, {"do": "logits", "ids": ids}, {"do": "attention", "ids": ids})
    with torch.inference_mode():
        expected = checkpoint.model(torch.tensor([ids]))[0]
    np.testing.assert_allclose(np.array(logits), expected.numpy(), atol=1e-4)
    maps = np.stack([head.weights for head in attention_maps(checkpoint, text).heads])
    np.testing.assert_allclose(np.array(attention).reshape(maps.shape), maps, atol=1e-5)


@needs_node
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["modern", "classic"])
def test_engine_writes_what_generate_writes_past_the_window_too(
    tmp_path: Path, story: str, name: str, kind: TokenizerKind
) -> None:
    checkpoint = random_checkpoint(MODELS[name], kind, story, 300 if kind == "bpe" else None)
    page = write_page(checkpoint, tmp_path, "bf16")
    round_weights(checkpoint, "bf16")
    for prompt in ("", story[:9], story[:700]):
        ids = checkpoint.tokenizer.encode(prompt) or checkpoint.tokenizer.start_ids
        (written,) = ask(page, {"do": "write", "ids": ids, "tokens": 300})
        assert written == [token for token, _ in greedy(checkpoint, ids, 300)]
        assert len(set(written)) > 5


@needs_node
def test_settings_shape_the_distribution_as_here(tmp_path: Path, story: str) -> None:
    checkpoint = random_checkpoint(MODELS["modern"], "char", story)
    page = write_page(checkpoint, tmp_path, "int8")
    round_weights(checkpoint, "int8")
    settings = [
        Sampling(), Sampling(temperature=0), Sampling(temperature=2.0, repetition_penalty=1.5),
        Sampling(top_k=4), Sampling(top_p=0.6), Sampling(min_p=0.1),
        Sampling(temperature=1.3, top_k=7, top_p=0.8, min_p=0.02, repetition_penalty=0.8),
    ]  # fmt: skip
    ids = checkpoint.tokenizer.encode(story[:20])
    asked = [asdict(sampling) for sampling in settings]
    (found,) = ask(page, {"do": "shape", "ids": ids, "settings": asked})
    logits = checkpoint.model(torch.tensor([ids]))[:, -1].detach()
    seen = torch.zeros(logits.shape, dtype=torch.bool).index_fill_(1, torch.tensor(ids), True)
    for sampling, probabilities in zip(settings, found, strict=True):
        expected = next_token_probabilities(logits, sampling, seen)[0]
        np.testing.assert_allclose(probabilities, expected.numpy(), atol=1e-5)


@needs_node
@pytest.mark.parametrize("splitting", SPLITTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_text_is_cut_as_here(
    tmp_path: Path, story: str, kind: TokenizerKind, splitting: int
) -> None:
    known, size = story + "".join(HOSTILE), 400 if kind == "bpe" else None
    checkpoint = random_checkpoint(MODELS["modern"], kind, known, size, splitting)
    page = write_page(checkpoint, tmp_path, "int8")
    chance = random.Random(0)
    texts = [*HOSTILE, story, *("".join(chance.choices(known, k=60)) for _ in range(1000))]
    start, found = ask(page, {"do": "start"}, {"do": "encode", "texts": texts})
    tokenizer = checkpoint.tokenizer
    assert start == tokenizer.start_ids
    for text, answer in zip(texts, found, strict=True):
        ids = tokenizer.encode(text)
        assert answer == {"ids": ids, "unknown": [], "text": tokenizer.decode(ids)}, repr(text)


@needs_node
def test_characters_outside_the_vocabulary_are_left_out_and_named(
    tmp_path: Path, story: str
) -> None:
    page = write_page(random_checkpoint(MODELS["modern"], "char", story), tmp_path, "int8")
    (found,) = ask(page, {"do": "encode", "texts": ["The 👩 héron"]})
    assert found[0]["unknown"] == ["👩", "é"]
    assert found[0]["text"] == "The  hron"


@needs_node
@pytest.mark.parametrize("kind", KINDS)
def test_worker_writes_shows_what_else_could_come_and_branches(
    tmp_path: Path, story: str, kind: TokenizerKind
) -> None:
    checkpoint = random_checkpoint(MODELS["modern"], kind, story, 300 if kind == "bpe" else None)
    page = write_page(checkpoint, tmp_path, "bf16")
    round_weights(checkpoint, "bf16")
    settings = {"run": 1, "inspect": True, "sampling": {"temperature": 0}}
    ids = checkpoint.tokenizer.encode("The heron")
    steps = greedy(checkpoint, ids, 20)
    written = [token for token, _ in steps]
    (heard,) = ask(page, {"do": "talk", "messages": [
        {**settings, "type": "read", "request": "show", "text": "The heron"},
        {**settings, "type": "write", "idx": ids, "tokens": 20, "seed": 0, "slow": False},
        {**settings, "type": "at", "idx": [*ids, *written], "index": len(ids) + 3},
        {**settings, "type": "shape", "sampling": {"temperature": 2}},
        {**settings, "type": "read", "request": "show", "text": ""},
    ]})  # fmt: skip
    ready, read, *wrote, at, shaped, empty = heard
    assert ready["type"] == "ready"
    assert [each["token"] for each in read["tokens"]] == ids
    batch: list[dict[str, Any]] = [each for answer in wrote for each in answer["batch"]]
    assert [each["token"] for each in batch] == written
    text = "".join(each["text"] for each in batch) + wrote[-1]["tail"]
    assert text == checkpoint.tokenizer.decode(written)
    for each, (_, logits) in zip(batch, steps, strict=True):
        likely = float(logits.softmax(-1)[each["token"]])
        assert each["likely"] == pytest.approx(likely, abs=1e-5)
    own = steps[3][1].softmax(-1)
    for row in at["bars"]["rows"]:
        assert row["own"] == pytest.approx(float(own[row["token"]]), abs=1e-5)
    assert at["bars"]["chosen"] == written[3]
    assert at["bars"]["drawable"] == 1
    warm = next_token_probabilities(steps[3][1][None], Sampling(temperature=2))[0]
    for row in shaped["bars"]["rows"]:
        assert row["shaped"] == pytest.approx(float(warm[row["token"]]), abs=1e-5)
    assert [each["token"] for each in empty["tokens"]] == checkpoint.tokenizer.start_ids
    assert (empty["tokens"][0]["text"], empty["bars"]["index"]) == ("", 1)


@pytest.fixture(scope="module")
def hostile() -> Checkpoint:
    """A model whose tokens, corpus and settings try to become markup."""
    words = " ".join((*HOSTILE, "</script><img src=x onerror=alert(1)>", "<!--<script>"))
    checkpoint = random_checkpoint(MODELS["modern"], "word", words)
    data = DataConfig(corpus=("/home/jane/<b>diary.txt",), tokenizer="word")
    return replace(checkpoint, metadata=replace(checkpoint.metadata, data=data))


def test_nothing_of_the_model_becomes_markup(hostile: Checkpoint) -> None:
    title = "</title><script>alert(1)</script>"
    page = playground_page(hostile, title=title, prompt=title)
    assert page.count("<script") == page.count("</script>") == 4
    assert "alert(1)</script" not in page
    assert "<b>" not in page.partition("<body>")[2]
    assert html.escape(title) in page.replace("&#34;", "&quot;")


def test_page_allows_its_own_script_and_style_and_nothing_else(hostile: Checkpoint) -> None:
    page = playground_page(hostile)

    def sha256(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    style = page.split("<style>")[1].split("</style>")[0]
    script = page.split("<script>")[1].split("</script>")[0]
    policy = html.unescape(page.split('Policy"\n      content="')[1].split('">')[0])
    assert policy == (
        f"default-src 'none'; script-src {sha256(script)} blob:; worker-src blob:; "
        f"style-src {sha256(style)}; img-src data:; base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"https?:|@import|url\(|innerHTML|outerHTML|insertAdjacent|eval\(", page)
    assert not re.search(r"<[^>]* (on\w+|style)=", page)


def test_page_tells_where_a_model_is_from_and_nothing_private(hostile: Checkpoint) -> None:
    page = playground_page(hostile, "bf16")
    assert "/home/jane" not in page
    found = json.loads(page.split('id="description">')[1].split("</script>")[0])
    assert (found["corpus"], found["dtype"]) == ("<b>diary", "bf16")
    assert "--data '<b>diary.txt'" in found["command"]
    assert "--set model.n_embd=24" in found["command"]


@pytest.mark.parametrize("preset", ["tiny", "small", "classic"])
def test_command_trains_the_same_model(preset: str, story: str) -> None:
    config = load_run_config(preset, {"train.max_iters": 7, "model.block_size": 16})
    data = DataConfig(corpus=("my texts/a b.txt", "c.txt"), tokenizer="byte")
    checkpoint = random_checkpoint(config.model, "byte", story)
    metadata = replace(
        checkpoint.metadata, data=data, optimizer=config.optimizer, train=config.train
    )
    page = playground_page(replace(checkpoint, metadata=metadata))
    command = json.loads(page.split('id="description">')[1].split("</script>")[0])["command"]
    words = shlex.split(command)
    assert words[:2] == ["minigpt", "train"]
    pairs = list(zip(words[2::2], words[3::2], strict=True))
    assert [value for name, value in pairs if name == "--data"] == ["a b.txt", "c.txt"]
    sets = dict(parse_override(value) for name, value in pairs if name == "--set")
    again = load_run_config(dict(pairs)["--preset"], sets)
    assert again.model_copy(update={"data": data}) == config.model_copy(update={"data": data})
    assert again.data.tokenizer == "byte"


def test_weights_are_stored_as_they_are_said_to_be(hostile: Checkpoint) -> None:
    total = sum(weight.numel() for weight in hostile.model.parameters())
    widths: dict[PageDtype, int] = {"bf16": 2, "int8": 1}
    for dtype, width in widths.items():
        entries, data = playground.stored_weights(hostile, dtype)
        assert [entry["offset"] % 4 for entry in entries] == [0] * len(entries)
        vectors = sum(w.numel() for w in hostile.model.parameters() if w.dim() == 1)
        rows = sum(len(w) for w in hostile.model.parameters() if w.dim() > 1)
        scales = 4 * rows if dtype == "int8" else 0
        expected = width * (total - vectors) + 4 * vectors + scales
        assert len(data) - expected in range(4 * len(entries))
    for weight in hostile.model.parameters():
        error = (playground.rounded(weight, "int8") - weight).abs()
        assert error.max() <= weight.abs().max() / 254 + 1e-6


def test_larger_models_are_rounded_to_eight_bits_by_themselves(
    story: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = random_checkpoint(MODELS["classic"], "char", story)
    assert '"dtype":"bf16"' in playground_page(checkpoint)
    monkeypatch.setattr(playground, "MOST_IN_BF16", 1000)
    assert '"dtype":"int8"' in playground_page(checkpoint)


def test_presets_fit_the_sizes_that_are_promised() -> None:
    small = random_checkpoint(ModernConfig(n_layer=3, n_head=4, n_embd=128), "byte", "")
    page = playground_page(small, "bf16").encode()
    assert len(page) <= 2_500_000
    assert (
        playground.page_bytes(small, "bf16")
        <= len(page)
        <= 150_000 + playground.page_bytes(small, "bf16")
    )
    medium = random_checkpoint(ModernConfig(), "byte", "")
    assert len(playground_page(medium, "int8").encode()) <= 16_000_000


def test_plain_writer_has_nothing_to_look_inside(story: str) -> None:
    checkpoint = random_checkpoint(ClassicConfig(n_layer=1, n_head=1, n_embd=4), "byte", "")
    page = playground_page(checkpoint, inspect=False)
    assert '"inspect":false' in page
    assert not re.search('id="(bars|heads|map|undo|tint|look)"', page)


@needs_node
def test_every_word_is_there_in_both_languages() -> None:
    source = (ROOT / "minigpt_cli" / "pages" / "playground_words.js").read_text(encoding="utf-8")
    keys = "JSON.stringify(Object.values(WORDS).map((w) => [Object.keys(w), Object.keys(w.facts)]))"
    said = subprocess.run(
        [str(NODE), "-e", f"{source}; console.log({keys})"], capture_output=True, check=True
    )
    english, chinese = json.loads(said.stdout)
    assert english == chinese


def test_engine_stays_readable() -> None:
    for script in ("engine.js", "tokenizer.js", "worker.js"):
        lines = (ROOT / "minigpt_cli" / "pages" / script).read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 500
