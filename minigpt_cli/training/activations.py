"""Activation checkpointing: memory for time (Chen et al. 2016)."""

from functools import partial

from torch.utils.checkpoint import checkpoint

from minigpt_cli.model.gpt import GPT


def checkpoint_activations(model: GPT) -> None:
    """Makes every block keep its input alone, and compute the rest again in the backward pass.

    The numbers are the same, dropout included. Evaluating and writing are not affected.
    """
    for block in model.blocks:
        # On the instance: the parameters keep their names.
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
