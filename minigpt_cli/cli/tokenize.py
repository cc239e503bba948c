"""`minigpt tokenize`: splits text into tokens, on disk or on screen."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minigpt_cli.cli.help import examples
from minigpt_cli.cli.options import (
    DEFAULT_DATA_DIR,
    DataDir,
    Encoding,
    Json,
    Verify,
    decoded,
    in_data,
    in_output,
)
from minigpt_cli.cli.texts import (
    Include,
    TextField,
    piped_kept,
    reading_settings,
    tokenizer_settings,
)
from minigpt_cli.language import _, ngettext

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from minigpt_cli.config.schema import DataConfig
    from minigpt_cli.data.dataset import Dataset
    from minigpt_cli.data.metadata import DatasetMetadata
    from minigpt_cli.tokenizer.base import Tokenizer

EXAMPLE = examples(
    "minigpt tokenize book.txt --kind bpe --vocab-size 2000",
    'minigpt tokenize --text "To be" --compare',
)
# Alternating backgrounds that are readable on dark and light terminals.
_COLORS = ("black on bright_cyan", "black on bright_yellow", "black on bright_green",
            "black on bright_magenta")  # fmt: skip

Check = Annotated[
    bool, in_output("--check", help="Only look at the text: files, damage, repetition.")
]
ValFraction = Annotated[
    float, in_data("--val-fraction", min=0, max=1, help="Fraction of the text used for validation.")
]
Kind = Annotated[
    str,
    typer.Option(
        "--kind",
        "-k",
        metavar="KIND|PATH",
        help="Tokenizer: char, word, byte, bpe, or a tokenizer.json.",
    ),
]


def tokenize(
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders or known corpora. Default: shakespeare."),
    ] = None,
    kind: Kind = "char",
    vocab_size: Annotated[
        int | None,
        typer.Option("--vocab-size", min=2, help="Maximum vocabulary size, for bpe and word."),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", "-t", help="Show how this text is tokenized.", callback=decoded),
    ] = None,
    compare: Annotated[bool, in_output("--compare", help="Compare all four kinds.")] = False,
    check: Check = False,
    val_fraction: ValFraction = 0.1,
    text_field: TextField = None,
    include: Include = None,
    encoding: Encoding = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    verify: Verify = False,
    as_json: Json = False,
) -> None:
    """Tokenize text: build a vocabulary and the dataset that training reads.

    The tokenizer is built from FILES. With --text, show how it splits a text of your own.
    """
    from minigpt_cli.cli.console import print_note
    from minigpt_cli.cli.text_files import reading_lines

    table = {
        "corpus": piped_kept(files or ["shakespeare"], data_dir, text_field),
        "val_fraction": val_fraction,
        "encoding": encoding or "utf-8",
    }
    how = reading_settings(include, text_field)
    chosen = tokenizer_settings(kind, "--kind")
    if check:
        if text is not None or compare:
            raise typer.BadParameter(_("--check cannot be combined with --text or --compare"))
        _check(_config(table, how), data_dir, as_json)
        return
    if chosen.keys() == {"data.tokenizer_file"} and not compare:
        if vocab_size is not None:
            raise typer.BadParameter(_("--vocab-size cannot be combined with a tokenizer's file"))
        datasets = [_prepare(_config(table, how), data_dir, verify, Path(kind))]
    else:
        sizes = _compared(vocab_size) if compare else {kind: vocab_size}
        configs = [_config({**table, "tokenizer": kind}, how, size) for kind, size in sizes.items()]
        datasets = [_prepare(config, data_dir, verify) for config in configs]
    for line in reading_lines(datasets[0].reading, val_fraction):
        print_note(line)
    _show(datasets, text, compare, as_json)


def _compared(vocab_size: int | None) -> dict[str, int | None]:
    """All kinds, with a size for those whose size can be chosen."""
    return {"char": None, "word": vocab_size, "byte": None, "bpe": vocab_size}


def _show(datasets: "list[Dataset]", text: str | None, compare: bool, as_json: bool) -> None:
    """Prints what was prepared, or how a text is tokenized.

    Args:
        datasets: one, or in a comparison one of each kind.
        text: the text to show.
        compare: whether to print a table of all.
        as_json: whether to print for programs.
    """
    from minigpt_cli.cli.console import out, print_json
    from minigpt_cli.cli.render import fit, raw

    splits = [] if text is None else [_split(data.tokenizer, text, compare) for data in datasets]
    if as_json:
        results = [_with_rates(dataset.metadata) for dataset in datasets]
        for result, split in zip(results, splits, strict=bool(splits)):
            result["text"] = split
        print_json(results if compare else results[0])
        return
    if text is None or compare:
        out.print(fit(_table([dataset.metadata for dataset in datasets]), out.width))
    if text is None and not compare:
        out.print(raw(_("Prepared in {folder}").format(folder=datasets[0].folder)), soft_wrap=True)
    for dataset, split in zip(datasets, splits, strict=bool(splits)):
        out.print(_colored(dataset.tokenizer, split))


def _config(
    table: dict[str, Any], how: dict[str, object], vocab_size: int | None = None
) -> "DataConfig":
    """The settings of a text.

    Args:
        table: names of the text, encoding, split and kind of tokenizer.
        how: settings of how it is read, by full name.
        vocab_size: the most tokens.
    """
    from minigpt_cli.config.loading import resolve

    size = {} if vocab_size is None else {"vocab_size": vocab_size}
    return resolve({"data": table | size}, how, "tokenize").data


def _prepare(
    config: "DataConfig", data_dir: Path, verify: bool, tokenizer_file: Path | None = None
) -> "Dataset":
    from minigpt_cli.cli.render import file_progress
    from minigpt_cli.data.vocabulary import with_tokenizer
    from minigpt_cli.data.workspace import Workspace
    from minigpt_cli.tokenizer.files import read_tokenizer

    tokenizer = None if tokenizer_file is None else read_tokenizer(tokenizer_file)
    if tokenizer is not None:
        config = with_tokenizer(config, tokenizer)
    with file_progress() as progress:
        return Workspace(data_dir, progress, verify=verify).dataset(config, tokenizer)


def _check(config: "DataConfig", data_dir: Path, as_json: bool) -> None:
    """Reads the files, says so, and keeps nothing.

    Raises:
        CorpusError: a file cannot be read; all are shown first.
    """
    from minigpt_cli.cli.console import out, print_json, print_note
    from minigpt_cli.cli.render import file_progress
    from minigpt_cli.cli.text_files import (
        check_json,
        check_table,
        damage_error,
        damage_json,
        damage_table,
        reading_json,
        reading_lines,
        reading_tables,
    )
    from minigpt_cli.data.corpora.checking import Unreadable, check_text, readable
    from minigpt_cli.data.corpora.corpus import Corpus
    from minigpt_cli.data.reading import read_corpus
    from minigpt_cli.data.workspace import Workspace
    from minigpt_cli.errors import CorpusError

    damaged: list[Unreadable] = []
    with file_progress() as progress:
        try:
            corpus = Workspace(data_dir, progress).corpus(
                config.corpus, config, lambda path, error: damaged.append(Unreadable(path, error))
            )
        except CorpusError:
            if not damaged:
                raise
            corpus = Corpus("", ())  # nothing else was named
        corpus, undecodable = readable(corpus)
        damaged += undecodable
        reading = read_corpus(corpus, progress)
        found = check_text(corpus, reading, config.val_fraction, progress) if corpus.files else None
    for line in reading_lines(reading, config.val_fraction):
        print_note(line)
    if as_json:
        check = check_json(found) if found else None
        unreadable = damage_json(damaged)
        listed = reading_json(reading, config.val_fraction)
        print_json({**listed, "unreadable": unreadable, "check": check})
    else:
        for table in reading_tables(reading, config.val_fraction):
            out.print(table)
        if damaged:
            out.print(damage_table(damaged))
        if found:
            out.print(check_table(found, reading, config.val_fraction))
    if damaged:
        raise damage_error(damaged)


def _with_rates(metadata: "DatasetMetadata") -> dict[str, Any]:
    return {
        **asdict(metadata),
        "tokens": metadata.tokens,
        "characters_per_token": metadata.characters / metadata.tokens,
        "megabytes_per_second": metadata.text_bytes / 1e6 / metadata.seconds,
    }


def _table(rows: "list[DatasetMetadata]") -> "Table":
    from minigpt_cli.cli.render import count, grid
    from minigpt_cli.io.text import duration

    table = grid(
        _("kind"),
        _("characters"),
        _("tokens"),
        _("chars/token"),
        _("vocabulary"),
        _("time"),
        _("MB/s"),
    )
    for row in rows:
        table.add_row(
            row.kind,
            count(row.characters),
            count(row.tokens),
            f"{row.characters / row.tokens:.2f}",
            count(row.vocab_size),
            duration(row.seconds),
            f"{row.text_bytes / 1e6 / row.seconds:.1f}",
        )
    return table


def _split(tokenizer: "Tokenizer", text: str, compare: bool) -> dict[str, Any]:
    """The tokens of a text; in a comparison, the error of a kind that cannot encode it."""
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


def _colored(tokenizer: "Tokenizer", split: dict[str, Any]) -> "Text":
    """Each token in its own color, with its id, and whether decoding restores the text."""
    from rich.text import Text

    from minigpt_cli.cli.console import printable

    if "error" in split:
        return Text(f"{tokenizer.kind}: {split['error']}", style="yellow")
    tokens = len(split["ids"])
    how_many = ngettext("{number} token", "{number} tokens", tokens).format(number=tokens)
    shown = Text(f"{tokenizer.kind}: {how_many}\n")
    for i, token in enumerate(split["ids"]):
        # Part of a character is not text; its bytes are shown.
        whole = tokenizer.token_bytes[token].decode("utf-8", errors="backslashreplace")
        visible = printable(whole).replace("\n", "\\n").replace("\t", "\\t")
        shown.append(visible, style=_COLORS[i % len(_COLORS)])
        shown.append(f":{token} ", style="dim")
    if split["round_trip"]:
        shown.append("\n" + _("decoding restores the text"), style="green")
    else:
        shown.append("\n" + _("decoding does not restore the text"), style="yellow")
    return shown
