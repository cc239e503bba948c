"""The next token's distribution as a table, for `generate --top` and `inspect --next`."""

from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from minigpt_cli.cli.console import in_unicode, out, print_json
from minigpt_cli.cli.render import count, grid, raw
from minigpt_cli.cli.writing import Writer
from minigpt_cli.inspection.next_token import Choice, NextToken, next_token

BAR = 12


def show_likeliest(writer: Writer, prompts: Sequence[str], top: int, as_json: bool) -> None:
    """Prints the likeliest next tokens of each prompt, at three temperatures side by side."""
    writer.note_prompts(prompts)
    found = [
        next_token(writer.loaded, prompt, ids, writer.sampling, top)
        for prompt, ids in zip(prompts, writer.ids(prompts), strict=True)
    ]
    if as_json:
        print_json([asdict(facts) for facts in found])
        return
    for facts in found:
        out.print(distribution(facts))


def distribution(facts: NextToken) -> Table:
    """A token a row, a temperature a column; what a cut would drop is shaded lightly."""
    temperatures = [f"temperature {choice.temperature:g}" for choice in facts.choices]
    table = grid(
        "next token", *temperatures, text_columns=1 + len(temperatures),
        title=raw(_end(facts.prompt)),
    )  # fmt: skip
    for i, token in enumerate(facts.tokens):
        table.add_row(raw(repr(token)), *(_bar(choice, i) for choice in facts.choices))
    table.add_section()
    for cuts in zip(*(choice.cuts for choice in facts.choices), strict=True):
        kept = (f"keeps {count(cut.kept)}, {cut.probability:.1%}" for cut in cuts)
        table.add_row(cuts[0].setting, *kept)
    return table


def _bar(choice: Choice, i: int) -> Text:
    """A bar and its percentage; a token that cannot be drawn has neither."""
    probability = choice.probabilities[i]
    if probability == 0:
        return Text("-", "dim")
    kept = all(i < cut.kept for cut in choice.cuts)
    full, light = "█░" if in_unicode() else "#-"
    filled = round(BAR * probability)
    bar = ((full if kept else light) * filled, "green" if kept else "")
    return Text.assemble(bar, " " * (BAR - filled), f" {probability:6.1%}")


def _end(prompt: str) -> str:
    """The last characters of a prompt, for a title."""
    return f"After {'...' if len(prompt) > 40 else ''}{prompt[-40:]!r}"
