"""A text does not depend on what is written beside it, in fp32 as the help says."""

from typing import Any

import pytest
import torch

from minigpt_cli.config.schema import ClassicConfig, ModernConfig
from minigpt_cli.generation.sampling import Sampling
from minigpt_cli.generation.tokens import GenerationRequest, generate_tokens
from minigpt_cli.model.gpt import GPT

SIZES: dict[str, Any] = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16}


def written(model: GPT, prompts: list[list[int]], samples: int = 1) -> list[list[int]]:
    request = GenerationRequest(prompts, 60, Sampling(temperature=1.0, seed=3), samples)
    steps = [step.tokens for step in generate_tokens(model, request)]
    return [[token for token in row if token is not None] for row in zip(*steps, strict=True)]


@pytest.mark.parametrize("config", [ModernConfig(**SIZES), ClassicConfig(**SIZES)])
def test_in_fp32_each_text_is_what_it_is_alone(config: ModernConfig | ClassicConfig) -> None:
    torch.manual_seed(0)
    model = GPT(config, 40).initialize()
    prompts = [[1], [2, 3, 4], [5] * 9, [7, 8], list(range(20))]
    alone = [written(model, [prompt], 3) for prompt in prompts]
    assert written(model, prompts, 3) == [text for texts in alone for text in texts]
