"""`minigpt inspect memorized`: is the model learning or copying?"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from minigpt_cli.cli.console import err, print_note
from minigpt_cli.cli.inspect.output import Output
from minigpt_cli.cli.loading import CheckpointPath, load
from minigpt_cli.cli.options import DEFAULT_DATA_DIR, DataDir, Device, Json, Seed, Verify
from minigpt_cli.cli.render import (
    PASSAGE_WIDTH,
    count,
    file_progress,
    grid,
    one_line,
    raw,
    shortened,
)
from minigpt_cli.cli.startup import import_torch
from minigpt_cli.language import _

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt_cli.inspection.memorized import Measure, Memorized, Verdict

EXAMPLE = "minigpt inspect memorized --samples 20"
PASSAGES_SHOWN, CHARACTERS_SHOWN = 10, 240
TEMPERATURE = 0.8
STYLES: "dict[Verdict, str]" = {
    "writes": "green", "copies in places": "dark_orange", "copies": "red",
    "cannot tell": "yellow",
}  # fmt: skip


def show(
    samples: Annotated[int, typer.Option(min=1, help="How many texts to generate.")] = 10,
    seed: Seed = 0,
    checkpoint: CheckpointPath = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    verify: Verify = False,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Show generated passages copied verbatim from the training text.

    Text that the model never saw is searched for copies too, for comparison.
    """
    import_torch()
    from minigpt_cli.data.workspace import Workspace
    from minigpt_cli.device import reraise_out_of_memory
    from minigpt_cli.generation.sampling import Sampling
    from minigpt_cli.inspection.memorized import memorized

    loaded = load(checkpoint, device)
    metadata = loaded.checkpoint.metadata
    with file_progress() as progress:
        dataset = Workspace(data_dir, progress, print_note, verify).own_dataset(metadata)
    generating = err.status(_("Generating, and searching the training text"))
    with generating, reraise_out_of_memory(_("ask for fewer --samples")):
        sampling = Sampling(TEMPERATURE, seed=seed)
        found = memorized(loaded.checkpoint.model, dataset, samples, sampling=sampling)

    measures = _measures(found, metadata.corpus, found.copied)
    tables = [measures, _verdict(found), Text(), _passages(found)]
    value: dict[str, Any] = {"checkpoint": str(loaded.path), "verdict": found.verdict}
    Output(as_json).show({**value, **asdict(found)}, tables)


def _measures(found: "Memorized", corpus: str, copied: int) -> "RenderableType":
    table = grid(
        _("text"), _("characters"), _("longest copy"),
        _("in copies of {copied} or more").format(copied=copied), prose=[0],
        title=raw(_("Copied verbatim from the training text of {corpus}").format(corpus=corpus)),
    )  # fmt: skip
    rows: list[tuple[str, Measure | None]] = [
        (
            _("generated: {samples} of {tokens} tokens").format(
                samples=count(found.samples), tokens=count(found.tokens)
            ),
            found.written,
        ),
        (_("unseen: validation text"), found.unseen),
    ]
    for name, measure in rows:
        if measure is None:
            table.add_row(name, _("none"), "-", "-")
            continue
        table.add_row(
            name, count(measure.characters), count(measure.longest), f"{measure.share:.1%}"
        )
    return table


def _verdict(found: "Memorized") -> Text:
    verdicts: dict[Verdict, str] = {
        "copies": _("It copies"),
        "copies in places": _("It copies in places"),
        "writes": _("It writes"),
        "cannot tell": _("This cannot tell"),
    }
    against = (
        _("against {share:.1%}").format(share=found.unseen.share)
        if found.unseen
        else _("nothing to compare with")
    )
    return Text.assemble(
        (verdicts[found.verdict], f"bold {STYLES[found.verdict]}"),
        _(": {why} ({share:.1%}, {against}). Its longest copy has {longest} characters.").format(
            why=_why(found),
            share=found.written.share,
            against=against,
            longest=count(found.written.longest),
        ),
    )


def _why(found: "Memorized") -> str:
    more = found.written.share > (found.unseen.share if found.unseen else 0.0)
    if found.verdict == "copies":
        return _("far more of it is copied than of text it never saw")
    if found.verdict == "cannot tell":
        return _(
            "text it never saw is itself copied mostly or in large part, because the texts repeat "
            "themselves; a validation text without the repetitions could tell (train --val-data)"
        )
    if found.verdict == "writes" and more:
        return _("hardly more of it is copied than of text it never saw")
    if found.verdict == "writes":
        return _("no more of it is copied than of text it never saw")
    if more:
        return _("more of it is copied than of text it never saw, or in longer passages")
    return _("no more of it is copied than of text it never saw, but in much longer passages")


def _passages(found: "Memorized") -> "RenderableType":
    table = grid(
        _("passage"), _("characters"), _("line"), _("times"), _("sample"), prose=[0],
        title=raw(_("longest passages")),
    )  # fmt: skip
    table.columns[0].min_width = PASSAGE_WIDTH
    for passage in found.passages[:PASSAGES_SHOWN]:
        table.add_row(
            raw(shortened(one_line(passage.text), CHARACTERS_SHOWN)),
            *map(count, (len(passage.text), passage.line, passage.times, passage.sample)),
        )
    return table
