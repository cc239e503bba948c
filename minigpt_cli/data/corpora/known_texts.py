"""Reads a text, unless its files are those that were read before."""

from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path

from minigpt_cli.data.corpora.corpus import Corpus
from minigpt_cli.data.progress import Progress
from minigpt_cli.data.reading import Reading, read_corpus
from minigpt_cli.data.records import RECORD, Record, Sources, TextRecord, read_record
from minigpt_cli.errors import CorpusError
from minigpt_cli.io.memory import keep_freed_memory
from minigpt_cli.language import _, ngettext

_RECORDED = [field.name for field in fields(TextRecord)]


@dataclass(frozen=True)
class KnownText:
    """A text that was read, now or earlier."""

    reading: Reading
    key: str | None
    """Stands for its files in records; None if they changed too shortly before they were read."""
    is_recorded: bool
    """Whether it was read earlier, rather than now."""

    def added_to(self, record: Record) -> Record:
        """The record with this text, so that it need not be read again."""
        if self.key is None or self.key in record.texts:
            return record
        texts = tuple(
            TextRecord(**{name: getattr(text, name) for name in _RECORDED})
            for text in self.reading.texts
        )
        return record.with_texts(self.key, texts)


def read_texts(corpus: Corpus, validation: Corpus | None, progress: Progress) -> KnownText:
    """Reads a text, and the one to validate on if it is separate.

    Raises:
        CorpusError: a file cannot be read or is not in its encoding, or the text is too short.
    """
    keep_freed_memory()  # a piece of text frees what the next one allocates
    corpora = [corpus] if validation is None else [corpus, validation]
    before = Sources.of(corpora)
    reading = read_corpus(corpus, progress)
    if validation is not None:
        reading = replace(reading, validation=read_corpus(validation, progress))
    if reading.characters < 2:
        problem = ngettext(
            "{files}: the text has {number} character and needs at least 2; use a longer text",
            "{files}: the text has {number} characters and needs at least 2; use a longer text",
            reading.characters,
        )
        files = _(", ").join(str(file.path) for file in corpus.files)
        raise CorpusError(problem.format(files=files, number=reading.characters))
    settled = before.settled and Sources.of(corpora).key == before.key
    return KnownText(reading, before.key if settled else None, is_recorded=False)


def recorded_texts(shelf: Path, corpus: Corpus, validation: Corpus | None) -> KnownText | None:
    """The same without reading a text, if a dataset was prepared from these files before.

    Args:
        shelf: the folder of all datasets prepared from texts of this name.
        corpus: the text.
        validation: the text to validate on, if it is separate.

    Raises:
        CorpusError: a file is gone.
    """
    corpora = [corpus] if validation is None else [corpus, validation]
    paths: list[Path] = []
    with suppress(OSError):  # what keeps the folder from being read is said when it is written
        paths = sorted(shelf.glob(f"*/{RECORD}"))
    key = Sources.of(corpora).key if paths else ""
    for path in paths:
        texts = read_record(path.parent).texts.get(key)
        if texts is None or len(texts) != len(corpora):
            continue
        if all(len(c.files) == len(t.file_characters) for c, t in zip(corpora, texts, strict=True)):
            first, *others = (
                Reading(each, **{name: getattr(text, name) for name in _RECORDED})
                for each, text in zip(corpora, texts, strict=True)
            )
            reading = replace(first, validation=others[0]) if others else first
            return KnownText(reading, key, is_recorded=True)
    return None
