"""Compiling where it works, and running uncompiled where it does not."""

from typing import Any

import pytest
import torch
from torch import nn

from minigpt_cli.config.schema import ModernConfig
from minigpt_cli.model.compilation import WORTHWHILE_STEPS, compile_blocks, should_compile
from minigpt_cli.model.gpt import GPT

CONFIG = ModernConfig(n_layer=2, n_head=2, n_embd=16, block_size=8)


@pytest.mark.parametrize(
    ("setting", "device", "steps", "expected"),
    [
        ("auto", "cpu", 10 * WORTHWHILE_STEPS, False),
        ("auto", "cuda", WORTHWHILE_STEPS, True),
        ("auto", "cuda", WORTHWHILE_STEPS - 1, False),
        ("on", "cpu", 1, True),
        ("off", "cuda", 10 * WORTHWHILE_STEPS, False),
    ],
)
def test_auto_compiles_long_runs_on_a_gpu_only(
    setting: str, device: str, steps: int, expected: bool
) -> None:
    assert should_compile(setting, torch.device(device), steps) is expected


def test_a_compiler_that_fails_leaves_the_model_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken_compile(self: nn.Module, **options: Any) -> None:
        def fail(*inputs: Any) -> None:
            raise RuntimeError("no C++ compiler\nand a long explanation")

        self._compiled_call_impl = fail

    monkeypatch.setattr(nn.Module, "compile", broken_compile)
    torch.manual_seed(0)
    model = GPT(CONFIG, 11).initialize()
    x, y = torch.randint(11, (2, 3, 8))
    before = model(x, y)
    assert compile_blocks(model, x, y) == "RuntimeError: no C++ compiler"
    assert torch.equal(model(x, y), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_every_block_is_compiled_and_no_gradients_remain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[nn.Module, dict[str, Any]]] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: asked.append((self, options)))
    model = GPT(CONFIG, 11).initialize()
    x, y = torch.randint(11, (2, 3, 8))
    assert compile_blocks(model, x, y) is None
    assert asked == [(block, {"dynamic": False}) for block in model.blocks]
    assert all(parameter.grad is None for parameter in model.parameters())
