"""`minigpt inspect --memorized`: is it learning or copying?"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from minigpt_cli.cli.console import err
from minigpt_cli.cli.inspect.output import Output
from minigpt_cli.cli.render import count, file_progress, grid, one_line, raw, shortened
from minigpt_cli.cli.writing import load_model
from minigpt_cli.data.workspace import Workspace
from minigpt_cli.device import reraise_out_of_memory
from minigpt_cli.errors import ConfigError
from minigpt_cli.generation.sampling import Sampling
from minigpt_cli.inspection.memorized import COPIED, Measure, Memorized, Verdict, memorized

if TYPE_CHECKING:
    from rich.console import RenderableType

PASSAGES_SHOWN, CHARACTERS_SHOWN = 10, 240
TEMPERATURE = 0.8
STYLES: dict[Verdict, str] = {"writes": "green", "copies in places": "dark_orange", "copies": "red"}


def show_memorized(
    path: Path, samples: int, seed: int, data_dir: Path, device: str, output: Output
) -> None:
    """Lets a model write, and shows what of it stands verbatim in its training text.

    Args:
        path: the checkpoint.
        samples: texts to write.
        seed: of their random choices.
        data_dir: where fetched and prepared texts are kept.
        device: where to compute.
        output: where to.

    Raises:
        ConfigError: no text at all is asked for.
    """
    output.refuse("plot")
    output.refuse("html")
    if samples < 1:
        raise ConfigError(f"--samples {samples}: must be 1 or more")
    loaded = load_model(path, device, "auto", None)
    with file_progress() as progress:
        dataset = Workspace(data_dir, progress).own_dataset(loaded.metadata)
    writing = err.status("Writing, and searching the training text")
    with writing, reraise_out_of_memory("ask for fewer --samples"):
        found = memorized(loaded.model, dataset, samples, sampling=Sampling(TEMPERATURE, seed=seed))

    def tables() -> "Iterator[RenderableType]":
        yield _measures(found, loaded.metadata.corpus)
        yield _verdict(found)
        yield Text()
        yield _passages(found)

    output.show(_json(path, found), tables)


def _measures(found: Memorized, corpus: str) -> "RenderableType":
    table = grid(
        "text", "characters", "longest copy", f"in copies of {COPIED} or more",
        title=raw(f"What stands verbatim in the training text of {corpus}"),
    )  # fmt: skip
    rows: list[tuple[str, Measure | None]] = [
        (f"written: {count(found.samples)} of {count(found.tokens)} tokens", found.written),
        ("unseen: from the validation text", found.unseen),
    ]
    for name, measure in rows:
        if measure is None:
            table.add_row(name, "none", "-", "-")
            continue
        table.add_row(
            name, count(measure.characters), count(measure.longest), f"{measure.share:.1%}"
        )
    return table


def _verdict(found: Memorized) -> Text:
    against = f"against {found.unseen.share:.1%}" if found.unseen else "nothing to compare with"
    return Text.assemble(
        (f"It {found.verdict}", f"bold {STYLES[found.verdict]}"),
        f": {_why(found)} ({found.written.share:.1%}, {against}). Its longest copy has ",
        f"{count(found.written.longest)} characters.",
    )


def _why(found: Memorized) -> str:
    than = "is copied than of text that it never saw"
    more = found.written.share > (found.unseen.share if found.unseen else 0.0)
    if found.verdict == "copies":
        return f"far more of it {than}"
    if found.verdict == "writes":
        return f"{'hardly' if more else 'no'} more of it {than}"
    if more:
        return f"more of it {than}, or in longer passages"
    return f"no more of it {than}, but in much longer passages"


def _passages(found: Memorized) -> "RenderableType":
    table = grid("the longest passages", "characters", "line", "times", "sample")
    for passage in found.passages[:PASSAGES_SHOWN]:
        table.add_row(
            raw(shortened(one_line(passage.text), CHARACTERS_SHOWN)),
            *map(count, (len(passage.text), passage.line, passage.times, passage.sample)),
        )
    return table


def _json(path: Path, found: Memorized) -> dict[str, Any]:
    return {"checkpoint": str(path), "verdict": found.verdict, "copied": COPIED, **asdict(found)}
