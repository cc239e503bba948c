"""`minigpt generate --top`: the next token's distribution, and what temperature makes of it."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from rich.text import Text

from minigpt_cli.cli.console import out, print_json
from minigpt_cli.cli.render import grid, raw
from minigpt_cli.cli.writing import LESS_MEMORY, Writer
from minigpt_cli.device import out_of_memory_explained
from minigpt_cli.generation import generate_tokens
from minigpt_cli.sampling import Sampling, next_token_probabilities

BAR = 12


def show_likeliest(writer: Writer, prompts: Sequence[str], top: int, as_json: bool) -> None:
    """Prints the likeliest next tokens of each prompt, at three temperatures side by side."""
    writer.note_long_prompts(prompts)
    found = [_likeliest(writer, prompt, ids, top)
             for prompt, ids in zip(prompts, writer.ids(prompts), strict=True)]  # fmt: skip
    if as_json:
        print_json(found)
        return
    for facts in found:
        temperatures = [choice["temperature"] for choice in facts["choices"]]
        table = grid(
            "next token", *(f"temperature {t:g}" for t in temperatures),
            text_columns=1 + len(temperatures), title=raw(_end(facts["prompt"])),
        )  # fmt: skip
        for i, token in enumerate(facts["tokens"]):
            bars = [_bar(choice["probabilities"][i]) for choice in facts["choices"]]
            table.add_row(raw(repr(token)), *bars)
        out.print(table)


def _likeliest(writer: Writer, prompt: str, ids: list[int], top: int) -> dict[str, Any]:
    """The tokens, likeliest first, and their probabilities at each temperature."""
    tokenizer, sampling = writer.loaded.tokenizer, writer.sampling
    ids = ids[-writer.loaded.facts.model.block_size :]
    with out_of_memory_explained(LESS_MEMORY):
        (step,) = generate_tokens(writer.loaded.model, [ids], 1, sampling)
    seen = torch.zeros(step.logits.shape, dtype=torch.bool).index_fill_(1, torch.tensor(ids), True)
    order = step.logits[0].argsort(descending=True)[:top].tolist()
    return {
        "prompt": prompt,
        "tokens": [tokenizer.decode([token]) for token in order],
        "choices": [
            {
                "temperature": at.temperature,
                "probabilities": next_token_probabilities(step.logits, at, seen)[0, order].tolist(),
            }
            for at in _three(sampling)
        ],
    }


def _three(sampling: Sampling) -> list[Sampling]:
    """Half the temperature, the temperature, twice the temperature."""
    middle = sampling.temperature or 1.0
    temperatures = (
        0.5 * middle if sampling.temperature else 0.0,
        middle,
        min(2 * middle, sys.float_info.max),
    )
    return [replace(sampling, temperature=temperature) for temperature in temperatures]


def _bar(probability: float) -> Text:
    """A bar and its percentage; a token that cannot be drawn has neither."""
    if probability == 0:
        return Text("-", "dim")
    block = "█" if out.encoding.startswith("utf") else "#"
    filled = round(BAR * probability)
    return Text.assemble((block * filled, "green"), " " * (BAR - filled), f" {probability:6.1%}")


def _end(prompt: str) -> str:
    """The last characters of a prompt, for a title."""
    return f"After {'...' if len(prompt) > 40 else ''}{prompt[-40:]!r}"
