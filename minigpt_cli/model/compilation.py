"""Compiling the blocks of a model with `torch.compile`, where possible.

Each block is compiled separately: equal blocks share one compilation, which takes less time than
compiling the whole model.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from minigpt_cli.language import _
from minigpt_cli.model.gpt import GPT
from minigpt_cli.private_torch import uncompile

WORTHWHILE_STEPS = 1000
"""The shortest run that `auto` compiles on a GPU; an estimate, not measured."""


def should_compile(setting: str, device: torch.device, max_iters: int) -> bool:
    """Whether to compile: as `setting` says; `auto` compiles long runs on an NVIDIA GPU."""
    if setting == "auto":
        return device.type == "cuda" and max_iters >= WORTHWHILE_STEPS
    return setting == "on"


def compile_blocks(model: GPT, x: Tensor, y: Tensor) -> str | None:
    """Compiles the blocks for batches of this shape.

    Args:
        model: keeps its parameters and their names.
        x: inputs, (B, T).
        y: targets, (B, T).

    Returns:
        None, or why it failed, in one line; the model then runs uncompiled, as before.
    """
    for block in model.blocks:
        block.compile(dynamic=False)
    try:
        model(x, y).backward()
    except Exception as error:  # the compiler toolchain raises exceptions of any kind
        for block in model.blocks:
            uncompile(block)
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {lines[0] if lines else _('no reason given')}"
    finally:
        model.zero_grad(set_to_none=True)
    return None


@contextmanager
def eagerly() -> Iterator[None]:
    """Runs compiled blocks uncompiled inside this context, so that other shapes compile nothing."""
    with torch.compiler.set_stance("force_eager"):
        yield
