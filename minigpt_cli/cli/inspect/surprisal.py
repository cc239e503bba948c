"""`minigpt inspect --surprisal`: which passages of a text the model finds hard."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from minigpt_cli.cli.console import out, printable
from minigpt_cli.cli.inspect.output import Output
from minigpt_cli.cli.render import count, file_progress, grid, key_value_table, one_line, raw
from minigpt_cli.data.workspace import Workspace
from minigpt_cli.device import pick_device
from minigpt_cli.inspection.surprisal import LEVELS, Scored, Surprisal, surprisal
from minigpt_cli.pages.render import render
from minigpt_cli.runs.checkpoint import load_checkpoint
from minigpt_cli.runs.folder import CHECKPOINT

if TYPE_CHECKING:
    from rich.console import RenderableType

PASSAGES_SHOWN, CHARACTERS_SHOWN = 10, 3_000
# Both colors are given, so that they can be read on a dark terminal and on a light one.
STYLES = ("", "black on #b9b38f", "black on #e6c34a", "black on #ee8a3a", "bold white on #b3261e")
LEGEND = (
    f"under {LEVELS[0]:g} bit",
    *(f"{least:g} to {most:g}" for least, most in pairwise(LEVELS)),
    f"{LEVELS[-1]:g} and more",
)


def show_surprisal(
    path: Path, text: str, encoding: str | None, data_dir: Path, device: str, output: Output
) -> None:
    """Shows what a text costs a model, and where.

    Args:
        path: the checkpoint.
        text: a file, a folder or a known corpus.
        encoding: of the file; UTF-8 unless given.
        data_dir: where fetched texts are kept.
        device: where to compute.
        output: where to.
    """
    output.refuse("plot")
    loaded = load_checkpoint(path, pick_device(device))
    with file_progress() as progress:
        corpus = Workspace(data_dir, progress).corpus((text,), encoding or "utf-8")
        found = surprisal(
            loaded.model,
            loaded.tokenizer,
            "".join(corpus.chunks()),
            progress=progress,
        )
    summary = [("checkpoint", f"{path} (step {count(loaded.metadata.step)})"), ("text", text)]
    summary += _summary(found)

    def tables() -> "Iterator[RenderableType]":
        table = key_value_table()
        for name, value in summary:
            table.add_row(name, raw(value))
        yield table
        yield Text()
        if out.color_system and not out.no_color:
            yield from _colored_text(found)
        yield _hardest_table(found)

    def page() -> str:
        kept = sum(len(part.text) for part in found.beginning)
        return render(
            "surprisal.html.jinja",
            checkpoint=str(path.parent if path.name == CHECKPOINT else path),
            file=text, summary=summary, found=found, legend=LEGEND, shown=_shown,
            trimmed=_trimmed, part=_part_of(kept, found),
        )  # fmt: skip

    output.show(_json(path, text, found), tables, page=page)


def _summary(found: Surprisal) -> list[tuple[str, str]]:
    rows = [
        ("size", f"{count(found.characters)} characters, {count(found.tokens)} tokens predicted"),
        ("bits per byte", f"{found.bits_per_byte:.4f} ({count(round(found.bits))} bits in all)"),
        ("context", f"at least {count(found.context)} tokens before each (minigpt eval: 1)"),
    ]
    if found.unknown_tokens:
        share = found.unknown_tokens / found.tokens
        rows.append(("unknown", f"{share:.1%} of the tokens are <unk>; their bytes do not count"))
    return rows


def _colored_text(found: Surprisal) -> "Iterator[RenderableType]":
    """The legend, and as much of the text as is read on a terminal."""
    patches = [(f" {name} ", style) for name, style in zip(LEGEND, STYLES, strict=True)]
    yield Text(" ").join([Text("bits per token:"), *(Text.assemble(patch) for patch in patches)])
    yield Text()
    left = CHARACTERS_SHOWN
    parts: list[Scored] = []
    for part in found.beginning:
        if (left := left - len(part.text)) < 0:
            break
        parts.append(part)
    yield _colored(_trimmed(parts))
    if note := _part_of(sum(len(part.text) for part in parts), found):
        yield Text(f"{note} --html FILE holds more.", "dim")
    yield Text()


def _hardest_table(found: Surprisal) -> "RenderableType":
    passages = found.hardest[:PASSAGES_SHOWN]
    table = grid(
        f"the hardest of {count(found.passages)} passages",
        "line", "bits/byte", "hardest token",
    )  # fmt: skip
    for passage in passages:
        hardest = passage.hardest
        table.add_row(
            _colored(_trimmed(passage.parts), wrapped=True),
            count(passage.line),
            f"{passage.bits_per_byte:.2f}",
            raw(f"{hardest.text!r} {hardest.bits or 0:.1f}"),
        )
    return table


def _colored(parts: Sequence[Scored], wrapped: bool = False) -> Text:
    text = Text()
    for part in parts:
        text.append(printable(one_line(part.text)) if wrapped else _shown(part), STYLES[part.level])
    return text


def _shown(part: Scored) -> str:
    """Its text, harmless; a line end that was a surprise has a sign of its own."""
    text = printable(part.text.replace("\r", ""))
    return text.replace("\n", one_line("\n") + "\n") if part.level else text


def _trimmed(parts: Sequence[Scored]) -> Sequence[Scored]:
    """Without the white space at the end, unless it was a surprise."""
    blank = list(takewhile(lambda part: not part.text.strip() and not part.level, reversed(parts)))
    return parts[: len(parts) - len(blank)]


def _part_of(characters: int, found: Surprisal) -> str | None:
    """Says so where only a part of a text is shown."""
    if characters >= found.characters:
        return None
    return f"The first {count(characters)} of {count(found.characters)} characters."


def _json(path: Path, text: str, found: Surprisal) -> dict[str, Any]:
    return {"checkpoint": str(path), "text": text, **asdict(found)}
