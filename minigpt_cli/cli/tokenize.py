"""`minigpt tokenize`: text to tokens, on disk or before your eyes."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minigpt_cli.cli.options import DATA, DEFAULT_DATA_DIR, OUTPUT, DataDir, Encoding, Json
from minigpt_cli.config.choices import TokenizerKind

if TYPE_CHECKING:
    from rich.text import Text

    from minigpt_cli.data.dataset import Dataset, DatasetMetadata
    from minigpt_cli.tokenizer.base import Tokenizer

EXAMPLE = (
    "Examples:  minigpt tokenize book.txt --kind bpe --vocab-size 2000    "
    'minigpt tokenize --text "To be" --compare'
)
# Alternating backgrounds that leave dark and light terminals readable.
_COLORS = ("black on bright_cyan", "black on bright_yellow", "black on bright_green",
            "black on bright_magenta")  # fmt: skip


def tokenize(
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders or known corpora. Default: shakespeare."),
    ] = None,
    kind: Annotated[TokenizerKind, typer.Option("--kind", "-k", help="What a token is.")] = "char",
    vocab_size: Annotated[
        int | None, typer.Option("--vocab-size", help="Largest vocabulary, for bpe and word.")
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", "-t", help="Show how this text is cut.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="All four kinds side by side.", rich_help_panel=OUTPUT)
    ] = False,
    val_fraction: Annotated[
        float,
        typer.Option("--val-fraction", help="Share kept for validation.", rich_help_panel=DATA),
    ] = 0.1,
    encoding: Encoding = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: Json = False,
) -> None:
    """Cut text into tokens: build a vocabulary and the data set that training reads.

    A tokenizer is built from FILES. With --text, see how it cuts a text of yours.
    """
    from minigpt_cli.cli.console import out, print_json
    from minigpt_cli.cli.render import raw

    # In a comparison the size is meant for the kinds that have a choice.
    sizes: dict[TokenizerKind, int | None] = {kind: vocab_size}
    if compare:
        sizes = {"char": None, "word": vocab_size, "byte": None, "bpe": vocab_size}
    datasets = [
        _prepare(files, kind, size, val_fraction, encoding, data_dir)
        for kind, size in sizes.items()
    ]
    cuts = [] if text is None else [_cut(dataset.tokenizer, text, compare) for dataset in datasets]
    if as_json:
        facts = [_with_rates(dataset.metadata) for dataset in datasets]
        for fact, cut in zip(facts, cuts, strict=bool(cuts)):
            fact["text"] = cut
        print_json(facts if compare else facts[0])
        return
    if text is None or compare:
        out.print(_table([dataset.metadata for dataset in datasets]))
    if text is None and not compare:
        out.print(raw(f"Prepared in {datasets[0].folder}"), soft_wrap=True)
    for dataset, cut in zip(datasets, cuts, strict=bool(cuts)):
        out.print(_colored(dataset.tokenizer, cut))


def _prepare(
    files: list[str] | None,
    kind: TokenizerKind,
    vocab_size: int | None,
    val_fraction: float,
    encoding: str | None,
    data_dir: Path,
) -> "Dataset":
    from minigpt_cli.cli.render import file_progress
    from minigpt_cli.config.loading import resolve
    from minigpt_cli.data.workspace import Workspace

    table: dict[str, Any] = {
        "corpus": files or ["shakespeare"],
        "tokenizer": kind,
        "val_fraction": val_fraction,
    }
    if vocab_size is not None:
        table["vocab_size"] = vocab_size
    data = resolve({"data": {**table, "encoding": encoding or "utf-8"}}, {}, "tokenize").data
    with file_progress() as progress:
        return Workspace(data_dir, progress).dataset(data)


def _with_rates(facts: "DatasetMetadata") -> dict[str, Any]:
    return {
        **asdict(facts),
        "tokens": facts.tokens,
        "characters_per_token": facts.characters / facts.tokens,
        "megabytes_per_second": facts.text_bytes / 1e6 / facts.seconds,
    }


def _table(facts: "list[DatasetMetadata]") -> "Any":
    from minigpt_cli.cli.render import count, duration, grid

    table = grid("kind", "characters", "tokens", "chars/token", "vocabulary", "time", "MB/s")
    for fact in facts:
        table.add_row(
            fact.kind,
            count(fact.characters),
            count(fact.tokens),
            f"{fact.characters / fact.tokens:.2f}",
            count(fact.vocab_size),
            duration(fact.seconds),
            f"{fact.text_bytes / 1e6 / fact.seconds:.1f}",
        )
    return table


def _cut(tokenizer: "Tokenizer", text: str, compare: bool) -> dict[str, Any]:
    """How a text is cut; in a comparison a kind that cannot says so, and the others go on."""
    from minigpt_cli.errors import TokenizerError

    try:
        ids = tokenizer.encode(text)
    except TokenizerError as error:
        if not compare:
            raise
        return {"error": str(error)}
    return {
        "ids": ids,
        "pieces": [tokenizer.decode([i]) for i in ids],
        "round_trip": tokenizer.decode(ids) == text,
    }


def _colored(tokenizer: "Tokenizer", cut: dict[str, Any]) -> "Text":
    """Each token in its own color, with its id, and whether the text comes back."""
    from rich.text import Text

    from minigpt_cli.cli.console import printable

    if "error" in cut:
        return Text(f"{tokenizer.kind}: {cut['error']}", style="yellow")
    shown = Text(f"{tokenizer.kind}: {len(cut['ids'])} token{'s' * (len(cut['ids']) != 1)}\n")
    for i, token in enumerate(cut["ids"]):
        # A piece of a character has no text of its own; its bytes are shown.
        whole = tokenizer.token_bytes[token].decode("utf-8", errors="backslashreplace")
        visible = printable(whole).replace("\n", "\\n").replace("\t", "\\t")
        shown.append(visible, style=_COLORS[i % len(_COLORS)])
        shown.append(f":{token} ", style="dim")
    verdict = "the text comes back exactly" if cut["round_trip"] else "the text does not come back"
    shown.append(f"\n{verdict}", style="green" if cut["round_trip"] else "yellow")
    return shown
