"""`minigpt inspect memorized`: is the model learning or copying?"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from minigpt_cli.cli.console import err, print_note
from minigpt_cli.cli.inspect.output import Output
from minigpt_cli.cli.loading import CheckpointPath, load
from minigpt_cli.cli.options import DEFAULT_DATA_DIR, DataDir, Device, Json, Seed, Verify
from minigpt_cli.cli.render import count, file_progress, grid, one_line, raw, shortened

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt_cli.inspection.memorized import Measure, Memorized, Verdict

EXAMPLE = "minigpt inspect memorized --samples 20"
PASSAGES_SHOWN, CHARACTERS_SHOWN = 10, 240
TEMPERATURE = 0.8
STYLES: "dict[Verdict, str]" = {
    "writes": "green", "copies in places": "dark_orange", "copies": "red"
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
    from minigpt_cli.data.workspace import Workspace
    from minigpt_cli.device import reraise_out_of_memory
    from minigpt_cli.generation.sampling import Sampling
    from minigpt_cli.inspection.memorized import memorized

    loaded = load(checkpoint, device)
    metadata = loaded.checkpoint.metadata
    with file_progress() as progress:
        dataset = Workspace(data_dir, progress, print_note, verify).own_dataset(metadata)
    generating = err.status("Generating, and searching the training text")
    with generating, reraise_out_of_memory("ask for fewer --samples"):
        sampling = Sampling(TEMPERATURE, seed=seed)
        found = memorized(loaded.checkpoint.model, dataset, samples, sampling=sampling)

    measures = _measures(found, metadata.corpus, found.copied)
    tables = [measures, _verdict(found), Text(), _passages(found)]
    value: dict[str, Any] = {"checkpoint": str(loaded.path), "verdict": found.verdict}
    Output(as_json).show({**value, **asdict(found)}, tables)


def _measures(found: "Memorized", corpus: str, copied: int) -> "RenderableType":
    table = grid(
        "text", "characters", "longest copy", f"in copies of {copied} or more", prose=[0],
        title=raw(f"Copied verbatim from the training text of {corpus}"),
    )  # fmt: skip
    rows: list[tuple[str, Measure | None]] = [
        (f"generated: {count(found.samples)} of {count(found.tokens)} tokens", found.written),
        ("unseen: validation text", found.unseen),
    ]
    for name, measure in rows:
        if measure is None:
            table.add_row(name, "none", "-", "-")
            continue
        table.add_row(
            name, count(measure.characters), count(measure.longest), f"{measure.share:.1%}"
        )
    return table


def _verdict(found: "Memorized") -> Text:
    against = f"against {found.unseen.share:.1%}" if found.unseen else "nothing to compare with"
    return Text.assemble(
        (f"It {found.verdict}", f"bold {STYLES[found.verdict]}"),
        f": {_why(found)} ({found.written.share:.1%}, {against}). Its longest copy has ",
        f"{count(found.written.longest)} characters.",
    )


def _why(found: "Memorized") -> str:
    than = "is copied than of text it never saw"
    more = found.written.share > (found.unseen.share if found.unseen else 0.0)
    if found.verdict == "copies":
        return f"far more of it {than}"
    if found.verdict == "writes":
        return f"{'hardly' if more else 'no'} more of it {than}"
    if more:
        return f"more of it {than}, or in longer passages"
    return f"no more of it {than}, but in much longer passages"


def _passages(found: "Memorized") -> "RenderableType":
    table = grid("longest passages", "characters", "line", "times", "sample", prose=[0])
    for passage in found.passages[:PASSAGES_SHOWN]:
        table.add_row(
            raw(shortened(one_line(passage.text), CHARACTERS_SHOWN)),
            *map(count, (len(passage.text), passage.line, passage.times, passage.sample)),
        )
    return table
