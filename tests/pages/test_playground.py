"""The model as a page computes what the model computes, and carries nothing that could do harm."""

from pathlib import Path

import numpy as np
import pytest
import torch

from minigpt_cli.config.choices import TokenizerKind
from minigpt_cli.generation.sampling import Sampling
from minigpt_cli.generation.tokens import generate_tokens
from minigpt_cli.inspection.attention import attention_maps
from minigpt_cli.pages.playground import PageDtype
from tests.helpers.playground import (
    MODELS,
    NODE,
    ask,
    random_checkpoint,
    round_weights,
    write_page,
)

needs_node = pytest.mark.skipif(NODE is None, reason="needs node")
KINDS: tuple[TokenizerKind, ...] = ("char", "word", "byte", "bpe")


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
    logits, attention, written = ask(
        page,
        {"do": "logits", "ids": ids},
        {"do": "attention", "ids": ids},
        {"do": "write", "ids": ids, "tokens": 300},
    )
    with torch.inference_mode():
        expected = checkpoint.model(torch.tensor([ids]))[0]
    np.testing.assert_allclose(np.array(logits), expected.numpy(), atol=1e-4)
    maps = np.stack([head.weights for head in attention_maps(checkpoint, text).heads])
    np.testing.assert_allclose(np.array(attention).reshape(maps.shape), maps, atol=1e-5)
    steps = generate_tokens(checkpoint.model, [ids], 300, Sampling(temperature=0))
    assert written == [step.tokens[0] for step in steps]
    assert len(set(written)) > 10
