"""Compiling the blocks of a model with `torch.compile`, where that is possible.

Each block is compiled by itself: equal blocks share one compilation, which takes less time than
that of the whole model.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from minigpt_cli.model.gpt import GPT
from minigpt_cli.private_torch import uncompile

WORTHWHILE_STEPS = 1000
"""On a GPU, runs of so many steps are taken to earn back the time of compiling: unmeasured."""


def should_compile(setting: str, device: torch.device, max_iters: int) -> bool:
    """Whether to compile: as told, or for `auto` in long runs on an NVIDIA GPU."""
    if setting == "auto":
        return device.type == "cuda" and max_iters >= WORTHWHILE_STEPS
    return setting == "on"


def compile_blocks(model: GPT, x: Tensor, y: Tensor) -> str | None:
    """Compiles the blocks for batches like this one.

    Args:
        model: keeps its parameters and their names.
        x: inputs, (B, T).
        y: targets, (B, T).

    Returns:
        None, or in one line why it did not work; the model then runs as it did before.
    """
    for block in model.blocks:
        block.compile(dynamic=False)
    try:
        model(x, y).backward()
    except Exception as error:  # whatever the compiler chain of this machine raises
        for block in model.blocks:
            uncompile(block)
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
    finally:
        model.zero_grad(set_to_none=True)
    return None


@contextmanager
def eagerly() -> Iterator[None]:
    """Inside this context compiled blocks run uncompiled, so that other shapes compile nothing."""
    with torch.compiler.set_stance("force_eager"):
        yield
