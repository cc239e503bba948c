"""`minigpt inspect surprisal`: which passages of a text the model finds hard."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from minigpt_cli.cli.console import out, print_note, printable
from minigpt_cli.cli.inspect.output import Output, save
from minigpt_cli.cli.loading import CheckpointPath, load, short_name
from minigpt_cli.cli.options import DEFAULT_DATA_DIR, DataDir, Device, Encoding, Force, Html, Json
from minigpt_cli.cli.render import (
    PASSAGE_WIDTH,
    count,
    file_progress,
    grid,
    key_value_table,
    legend,
    one_line,
    raw,
)
from minigpt_cli.cli.render import SURPRISE_STYLES as STYLES
from minigpt_cli.cli.startup import import_torch
from minigpt_cli.cli.text_files import corpus_lines
from minigpt_cli.language import _

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt_cli.inspection.surprisal import Scored, Surprisal

EXAMPLE = "minigpt inspect surprisal unseen.txt --html surprisal.html"
PASSAGES_SHOWN, CHARACTERS_SHOWN = 10, 3_000


def show(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A text file, folder or corpus.")],
    checkpoint: CheckpointPath = None,
    encoding: Encoding = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    device: Device = "cpu",
    html: Html = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show which passages of a text the model finds hard, in bits per token.

    --html FILE saves the colored text as a page.
    """
    import_torch()
    from minigpt_cli.data.workspace import Workspace
    from minigpt_cli.inspection.surprisal import surprisal
    from minigpt_cli.pages.surprisal import summary_rows, surprisal_page

    output = Output(as_json, html=html, force=force)
    loaded = load(checkpoint, device)
    model, tokenizer = loaded.checkpoint.model, loaded.checkpoint.tokenizer
    with file_progress() as progress:
        trained = loaded.checkpoint.metadata.data
        how = trained.model_copy(update={"encoding": encoding or "utf-8"})
        corpus = Workspace(data_dir, progress).corpus((file,), how)
        found = surprisal(model, tokenizer, "".join(corpus.chunks()), progress=progress)
    for line in corpus_lines(corpus):
        print_note(line)
    step = count(loaded.checkpoint.metadata.step)
    summary = [
        (_("checkpoint"), _("{path} (step {step})").format(path=loaded.path, step=step)),
        (_("text"), file),
    ]
    summary += summary_rows(found)

    if html:
        save(surprisal_page(found, short_name(loaded.path), file, summary).encode(), html)
    value: dict[str, Any] = {"checkpoint": str(loaded.path), "text": file, **asdict(found)}
    output.show(value, _tables(summary, found))


def _tables(summary: list[tuple[str, str]], found: "Surprisal") -> "Iterator[RenderableType]":
    table = key_value_table()
    for name, value in summary:
        table.add_row(name, raw(value))
    yield table
    yield Text()
    if out.color_system and not out.no_color:
        yield from _colored_text(found)
    yield _hardest_table(found)


def _colored_text(found: "Surprisal") -> "Iterator[RenderableType]":
    """The legend, and the beginning of the text."""
    from minigpt_cli.inspection.surprisal import level_names, trimmed
    from minigpt_cli.pages.surprisal import excerpt_note

    yield Text(_("bits per token: ")) + legend(level_names(), STYLES)
    yield Text()
    left = CHARACTERS_SHOWN
    parts: list[Scored] = []
    for part in found.beginning:
        if (left := left - len(part.text)) < 0:
            break
        parts.append(part)
    yield _colored(trimmed(parts))
    if note := excerpt_note(sum(len(part.text) for part in parts), found):
        yield Text(_("{note} --html FILE shows more.").format(note=note), "dim")
    yield Text()


def _hardest_table(found: "Surprisal") -> "RenderableType":
    from minigpt_cli.inspection.surprisal import trimmed

    hardest_of = _("the hardest of {passages} passages").format(passages=count(found.passages))
    table = grid(
        _("passage"), _("line"), _("bits/byte"), _("hardest token"), prose=[0],
        title=raw(hardest_of),
    )  # fmt: skip
    table.columns[0].min_width = PASSAGE_WIDTH
    for passage in found.hardest[:PASSAGES_SHOWN]:
        hardest = passage.hardest
        table.add_row(
            _colored(trimmed(passage.parts), wrapped=True),
            count(passage.line),
            f"{passage.bits_per_byte:.2f}",
            raw(f"{hardest.text!r} {hardest.bits or 0:.1f}"),
        )
    return table


def _colored(parts: "Sequence[Scored]", wrapped: bool = False) -> Text:
    text = Text()
    for part in parts:
        text.append(printable(one_line(part.text)) if wrapped else _shown(part), STYLES[part.level])
    return text


def _shown(part: "Scored") -> str:
    """The part's text; a line end that was a surprise gets a visible sign."""
    text = printable(part.text.replace("\r", ""))
    return text.replace("\n", one_line("\n") + "\n") if part.level else text
