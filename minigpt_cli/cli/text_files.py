"""Which files a text was read from, what was left out, and where its validation part begins."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from minigpt_cli.cli.render import count, grid, raw, size
from minigpt_cli.errors import CorpusError, about
from minigpt_cli.language import _, ngettext

if TYPE_CHECKING:
    from rich.table import Table

    from minigpt_cli.config.schema import DataConfig
    from minigpt_cli.data.corpora.checking import TextCheck, Unreadable
    from minigpt_cli.data.corpora.corpus import Corpus
    from minigpt_cli.data.corpora.sources import TextFile
    from minigpt_cli.data.dataset import Dataset
    from minigpt_cli.data.reading import Reading

_NAMED = 3
"""Files that a line names before it only counts them."""


def corpus_lines(corpus: "Corpus") -> list[str]:
    """What is worth a line about the files of a text; nothing for a single plain file."""
    from minigpt_cli.data.corpora.sources import count_kinds

    lines = list(corpus.notes)
    if len(corpus.files) > 1 or corpus.left_out:
        line = _("Read {files} ({size})").format(
            files=_files(len(corpus.files)), size=size(corpus.size)
        )
        if corpus.left_out:
            line += _("; left out {number}: {kinds}").format(
                number=count(len(corpus.left_out)), kinds=count_kinds(corpus.left_out)
            )
        lines.append(line)
    by_encoding: dict[str, list[str]] = defaultdict(list)
    for file in corpus.files:
        if file.detected and file.encoding != "utf-8":
            by_encoding[file.encoding].append(file.path.name)
        if file.note:
            lines.append(about(file.path, file.note))
    return lines + [
        _("Read {files} as {encoding}: {names}").format(
            files=_files(len(names)), encoding=encoding, names=_first(names)
        )
        for encoding, names in by_encoding.items()
    ]


def reading_lines(reading: "Reading", val_fraction: float) -> list[str]:
    """Like `corpus_lines`, with the files that the validation part comes from."""
    lines = corpus_lines(reading.corpus)
    if reading.validation is not None:
        corpus = reading.validation.corpus
        names = _first([file.path.name for file in corpus.files])
        return [*lines, *corpus_lines(corpus), _("For validation: {names}").format(names=names)]
    if len(reading.corpus.files) > 1:
        lines.append(_validation(reading, val_fraction))
    return lines


def dataset_lines(dataset: "Dataset", config: "DataConfig") -> list[str]:
    """Like `reading_lines`, for each text that is split by itself, with its weight."""
    lines = [
        line for reading in dataset.readings for line in reading_lines(reading, config.val_fraction)
    ]
    if config.weights:
        total = sum(config.weights)
        shares = zip(dataset.readings, config.weights, strict=True)
        each = [f"{reading.corpus.name} {weight / total:.1%}" for reading, weight in shares]
        lines.append(_("Share of the training batches: {shares}").format(shares=_(", ").join(each)))
    return list(dict.fromkeys(lines))


def _validation(reading: "Reading", val_fraction: float) -> str:
    """Which files the validation part is made of, in the order in which they are read."""
    files = reading.corpus.files
    index, character = reading.validation_start(val_fraction)
    names = [file.path.name for file in files[index:]]
    if character:
        names[0] = _("the end of {name}").format(name=names[0])
    return _("For validation, the last {percent:.3g}% of the text: {names}").format(
        percent=100 * val_fraction, names=_first(names)
    )


def _files(number: int) -> str:
    return ngettext("{number} file", "{number} files", number).format(number=count(number))


def _first(names: list[str]) -> str:
    more = len(names) - _NAMED
    return _(", ").join(names[:_NAMED]) + (
        _(" and {more} more").format(more=count(more)) if more > 0 else ""
    )


def reading_json(reading: "Reading", val_fraction: float) -> dict[str, Any]:
    """Every file that is read or left out, for programs."""
    corpus = reading.corpus
    files = [
        {
            "path": str(file.path),
            "encoding": file.encoding,
            "detected": file.detected,
            "bytes": file.size,
            "characters": characters,
            "validation_characters": validation,
            "note": file.note,
        }
        for file, characters, validation in _rows(reading, val_fraction)
    ]
    left_out = [
        {"path": str(item.path), "kind": item.kind, "reason": item.reason}
        for item in corpus.left_out
    ]
    return {
        "text": corpus.name,
        "characters": reading.characters,
        "bytes": reading.bytes,
        "files": files,
        "left_out": left_out,
        "notes": list(corpus.notes),
    }


def reading_tables(reading: "Reading", val_fraction: float) -> "Iterator[Table]":
    """Every file that is read, in order, and every one that is left out, with the reason."""
    table = grid(
        _("read"), _("encoding"), _("size"), _("characters"), _("for validation"), text_columns=2
    )
    for file, characters, validation in _rows(reading, val_fraction):
        table.add_row(
            raw(str(file.path)),
            file.encoding,
            size(file.size),
            count(characters),
            count(validation),
        )
    if table.row_count:
        yield table
    if reading.corpus.left_out:
        table = grid(_("left out"), _("why"), text_columns=2, prose=[1])
        for item in reading.corpus.left_out:
            table.add_row(raw(str(item.path)), raw(item.reason))
        yield table


def _rows(reading: "Reading", val_fraction: float) -> Iterator[tuple["TextFile", int, int]]:
    """Each file with its characters, and how many of them are for validation."""
    left = reading.training_characters(val_fraction)
    for file, characters in zip(reading.corpus.files, reading.file_characters, strict=True):
        training = min(left, characters)
        left -= training
        yield file, characters, characters - training


def damage_table(damaged: "list[Unreadable]") -> "Table":
    """Which files cannot be read, why, and where they are not in their encoding."""
    table = grid(
        _("unreadable"), _("encoding"), _("bad bytes"), _("why"), text_columns=2, prose=[3]
    )
    table.columns[3].justify = "left"
    for each in damaged:
        places, encoding = "", ""
        if each.bad is not None:
            encoding = each.bad.encoding
            places = ", ".join(map(str, each.bad.places)) + (" ..." if each.bad.more else "")
        table.add_row(raw(str(each.path)), encoding, places, raw(each.reason))
    return table


def damage_json(damaged: "list[Unreadable]") -> list[dict[str, Any]]:
    """The same, for programs."""
    return [
        {
            "path": str(each.path),
            "reason": each.reason,
            "bad_bytes": None if each.bad is None else list(each.bad.places),
        }
        for each in damaged
    ]


def damage_error(damaged: "list[Unreadable]") -> CorpusError:
    """What a check ends with: the first problem, and how many files have one."""
    first = damaged[0].error
    if len(damaged) == 1:
        return first
    return CorpusError(
        _("{number} files cannot be read; the first: {error}").format(
            number=count(len(damaged)), error=first
        ),
        first.settings,
    )


def check_table(found: "TextCheck", reading: "Reading", val_fraction: float) -> "Table":
    """What is worth knowing before training, a line each."""
    from minigpt_cli.data.corpora.checking import RARE

    table = grid(_("check"), _("found"), text_columns=2, prose=[1])
    units = {
        "documents": (_("documents"), _("repeated documents")),
        "paragraphs": (_("paragraphs"), _("repeated paragraphs")),
    }
    unit, repeated = units[found.unit]
    number = count(found.passages)
    if found.lengths is not None:
        shortest, median, longest = map(count, asdict(found.lengths).values())
        table.add_row(
            unit,
            _("{number}: {shortest} to {longest} characters, median {median}").format(
                number=number, shortest=shortest, longest=longest, median=median
            ),
        )
    duplicates = _("{duplicates} of {number}").format(
        duplicates=count(found.duplicates), number=number
    )
    if found.duplicate:
        duplicates += _(", as {example!r}").format(example=found.duplicate)
    table.add_row(repeated, raw(duplicates))
    if reading.training_characters(val_fraction) < reading.characters:
        table.add_row(_("in training and validation"), count(found.overlap))
    rare = _("{rare} of {characters} occur fewer than {most} times").format(
        rare=count(found.rare_characters), characters=count(found.characters), most=RARE
    )
    if found.rarest:
        rare += _(", as {example!r}").format(example=found.rarest)
    table.add_row(_("rare characters"), raw(rare))
    return table


def check_json(found: "TextCheck") -> dict[str, Any]:
    """The same, for programs."""
    return asdict(found)
