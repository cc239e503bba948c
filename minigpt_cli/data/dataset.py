"""Token ids on disk, memory-mapped.

A prepared dataset is a folder named after its fingerprint (text, tokenizer settings, split), so it
is never out of date.
"""

import hashlib
import json
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from minigpt_cli.config.choices import Split
from minigpt_cli.config.schema import DataConfig
from minigpt_cli.data.corpora.corpus import Corpus, encoded
from minigpt_cli.data.corpora.known_texts import KnownText, read_texts, recorded_texts
from minigpt_cli.data.metadata import (
    METADATA,
    TOKENIZER,
    DatasetMetadata,
    read_metadata,
    restrict_all,
    stored_tokenizer,
)
from minigpt_cli.data.preparing import ChangedWhileReadError, begun, write_dataset
from minigpt_cli.data.progress import Progress, no_progress
from minigpt_cli.data.reading import MOST_VALIDATION, Halves, Reading, read_corpus
from minigpt_cli.data.records import are_unchanged, read_record, verified, write_record
from minigpt_cli.data.tokens.layout import layout_of
from minigpt_cli.data.tokens.shards import MANIFEST
from minigpt_cli.data.tokens.token_files import Tokens, holds_ids_below, mapped_together, narrowest
from minigpt_cli.data.vocabulary import is_sampled, tokenizer_for
from minigpt_cli.errors import CorpusError, TokenizerError, reraise_as
from minigpt_cli.io.locking import take
from minigpt_cli.io.regular import NotRegularError
from minigpt_cli.language import _, mark
from minigpt_cli.tokenizer.base import SPLITTINGS, Tokenizer
from minigpt_cli.tokenizer.factory import check_settings, tokenizer_from_json

FORMAT = 1


class TextChangedError(CorpusError):
    """A text is not the one that a model was trained on."""


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset: the token ids of two splits, and the tokenizer that made them."""

    folder: Path
    metadata: DatasetMetadata
    tokenizer: Tokenizer
    reading: Reading
    """The text that it was prepared from; without files if it was not at hand."""

    def tokens(self, split: Split) -> Tokens:
        """The token ids of one split, mapped from disk, or of the whole text.

        Raises:
            CorpusError: the disk cannot hold a copy of the whole text.
        """
        return layout_of(self.folder, self.metadata).tokens(split)

    @property
    def train_parts(self) -> tuple[int, ...]:
        """Tokens of each text in the training split, where the texts have weights."""
        return ()

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Each text that is split by itself."""
        return (self.reading,)


def prepare_dataset(
    corpus: Corpus,
    config: DataConfig,
    data_dir: Path,
    progress: Progress = no_progress,
    expected: str | None = None,
    tokenizer: Tokenizer | None = None,
    validation: Corpus | None = None,
    verify: bool = False,
) -> Dataset:
    """Tokenizes a corpus, finds it already prepared, or waits while another process prepares it.

    With a `validation` text of its own, all of the corpus is for training. Otherwise the first
    `1 - val_fraction` of the characters are for training, the rest for validation. The
    `char` and `word` vocabularies cover the whole text, as in the guide (but a word that the split
    cuts in two is `<unk>` on both sides); `bpe` learns its merges from the training part.

    A text whose files have not changed since it was prepared is not read, and tokens that have not
    changed since they were verified are not read either.

    Args:
        corpus: the text.
        config: how to cut and split it.
        data_dir: where prepared texts are kept.
        progress: called with the stages of the work.
        expected: the only fingerprint that is wanted; for another text nothing is written.
        tokenizer: the one that came with the model, if `config.tokenizer_sha256` names one.
        validation: a text to validate on, instead of the end of the corpus.
        verify: read the text and the tokens even if their files seem unchanged.

    Raises:
        TextChangedError: the text is not the expected one.
        CorpusError: the text is empty, cannot be read, or changes while it
            is read, or the disk cannot hold the result.
        TokenizerError: the tokenizer's settings are impossible.
    """
    if config.tokenizer_sha256 is None:
        check_settings(config.tokenizer, config.vocab_size, corpus.has_documents)
    wanted = _Wanted(config, data_dir, progress, expected, tokenizer, verify)
    known = None if verify else recorded_texts(data_dir / corpus.name, corpus, validation)
    if known is not None:
        try:
            return wanted.of(known)
        except ChangedWhileReadError:  # a record that was not right: the disk, or the clock
            pass
    return wanted.of(read_texts(corpus, validation, progress))


@dataclass(frozen=True)
class _Wanted:
    """A dataset as it was asked for; the fields are arguments of `prepare_dataset`."""

    config: DataConfig
    data_dir: Path
    progress: Progress
    expected: str | None
    tokenizer: Tokenizer | None
    verify: bool

    def of(self, text: KnownText) -> Dataset:
        """Finds or prepares it, once its text is known."""
        reading, config = text.reading, self.config
        name = reading.corpus.name
        whole = config.model_copy(update={"bpe_sample": 0})  # as earlier versions learned
        ways = {
            _fingerprint(reading, how, splitting): (how, splitting)
            for splitting in SPLITTINGS
            for how in (whole, config)
        }
        fingerprint = self.expected or _fingerprint(reading, config, SPLITTINGS[0])
        if fingerprint not in ways:
            raise TextChangedError(
                _(
                    "{name}: the text has changed since the model was trained on it; restore the "
                    "original text, or train a new model"
                ).format(name=name)
            )
        folder = self.data_dir / name / fingerprint
        hint = _("free some space or choose another data folder")
        with reraise_as(CorpusError, folder, "written", hint=hint, settings=("data_dir",)):
            found = self._open(folder, text)  # before locking: it may be read-only
            if found is None:
                with _locked(folder, self.progress):
                    found = self._open(folder, text)
                    if found is None:
                        how, splitting = ways[fingerprint]
                        tokenizer = begun(folder) or tokenizer_for(
                            reading, how, splitting, self.tokenizer, self.progress
                        )
                        write_dataset(text, config, tokenizer, folder, self.progress)
                        found = self._open(folder, text)
        assert found is not None
        return found

    def _open(self, folder: Path, text: KnownText) -> Dataset | None:
        return _open_whole(folder, text, self.config, self.verify)


def find_prepared(data_dir: Path, fingerprint: str, verify: bool = False) -> Dataset | None:
    """A text that was prepared earlier, by its fingerprint alone; None if it is not there.

    Raises:
        CorpusError: it is there, but a file of it is missing or has been changed.
    """
    problem = None
    for folder in sorted(data_dir.glob(f"*/{fingerprint}")):
        if not (folder / METADATA).exists():
            continue  # not a text by itself
        try:
            return _opened(folder, None, None, verify)
        except _DamagedError as error:
            problem = problem or CorpusError(
                _(
                    "{folder}: the prepared text is damaged ({error}); restore the original text, "
                    "or a backup of this folder"
                ).format(folder=folder, error=error)
            )
    if problem is not None:
        raise problem
    return None


@contextmanager
def _locked(folder: Path, progress: Progress) -> Iterator[None]:
    """Keeps other processes from preparing `folder`; a crash releases the lock."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        take(lock, blocking=False)
    except Timeout:
        progress(mark("Waiting for another process"), 0, 0)
        take(lock, blocking=True)
    try:
        yield
    finally:
        lock.release()


class _DamagedError(Exception):
    """A prepared folder is not exactly what would be written: which file, and why."""


def _open_whole(
    folder: Path, text: KnownText | None, config: DataConfig | None, verify: bool
) -> Dataset | None:
    """Opens a prepared folder; None if it is not there, or not exactly what would be written."""
    try:
        return _opened(folder, text, config, verify)
    except _DamagedError:
        return None


def _opened(
    folder: Path, text: KnownText | None, config: DataConfig | None, verify: bool
) -> Dataset:
    """Opens a prepared folder.

    Raises:
        _DamagedError: it is not there, or not exactly what would be written.
    """
    try:
        metadata = read_metadata(folder)
        saved = stored_tokenizer(folder)
        if hashlib.sha256(saved).hexdigest() != metadata.tokenizer_sha256:
            raise _DamagedError(_("{name} has been changed").format(name=TOKENIZER))
        tokenizer = tokenizer_from_json(saved.decode())
        if text is None or config is None:  # without its text, by its fingerprint alone
            corpus = Corpus(metadata.corpus, ())
            reading = Reading(corpus, "", metadata.text_bytes, (metadata.characters,), "")
            found: tuple[object, ...] = (metadata.fingerprint, metadata.vocab_size, metadata.dtype)
            expected: tuple[object, ...] = (
                folder.name, tokenizer.vocab_size, narrowest(tokenizer)
            )  # fmt: skip
        else:
            reading, found = text.reading, _identity(metadata)
            expected = _expected_identity(folder, reading, config, tokenizer)
        if found != expected:
            raise _DamagedError(_("{name} has been changed").format(name=METADATA))
        if text is not None:
            restrict_all(folder, reading.corpus.permissions)
        dataset = Dataset(folder, metadata, tokenizer, reading)
        _check_tokens(dataset, text, verify)
    except FileNotFoundError as error:
        name = Path(error.filename).name
        raise _DamagedError(_("{name} is missing").format(name=name)) from None
    except (NotRegularError, IsADirectoryError) as error:
        name = Path(error.filename).name
        raise _DamagedError(_("{name} is not a file").format(name=name)) from None
    except TokenizerError:
        raise _DamagedError(_("{name} cannot be read").format(name=TOKENIZER)) from None
    except ValueError:  # not valid, or too large
        names = _(" or ").join((METADATA, MANIFEST))
        raise _DamagedError(_("{name} cannot be read").format(name=names)) from None
    return dataset


def _check_tokens(dataset: Dataset, text: KnownText | None, verify: bool) -> None:
    """Checks that the tokens are what was written; keeps what was found out for the next time.

    Raises:
        OSError: a file is gone, or is not a file.
        ValueError: the manifest of shards is not what was written.
        _DamagedError: another file is not.
    """
    folder, metadata = dataset.folder, dataset.metadata
    layout = layout_of(folder, metadata)
    width = np.dtype(metadata.dtype).itemsize
    for file in layout.files:
        if (folder / file.name).stat().st_size != file.tokens * width:
            raise _DamagedError(_("{name} has another size").format(name=file.name))
    before = record = read_record(folder)
    stamps = {}
    for group in layout.hashed:
        if not verify and are_unchanged(folder, group.names, record.prepared):
            stamps.update({name: record.prepared[name] for name in group.names})
            continue
        found = verified(folder, group.names)
        if found.sha256 != group.sha256:
            names = _(" or ").join(group.names)
            raise _DamagedError(_("{name} has been changed").format(name=names))
        for file in group.files:
            if not holds_ids_below(folder / file.name, metadata.dtype, metadata.vocab_size):
                raise _DamagedError(
                    _("{name} has ids beyond the vocabulary").format(name=file.name)
                )
        stamps.update(found.stamps)
    record = replace(record, prepared=stamps)
    if text is not None:
        record = text.added_to(record)
    if record != before:
        write_record(folder, record, stat.S_IMODE((folder / METADATA).stat().st_mode))


def _identity(metadata: DatasetMetadata) -> tuple[object, ...]:
    """What the text and the settings alone say of a dataset."""
    return (
        metadata.corpus, metadata.fingerprint, metadata.kind, metadata.vocab_size, metadata.dtype,
        metadata.text_bytes, metadata.characters,
    )  # fmt: skip


def _expected_identity(
    folder: Path, reading: Reading, config: DataConfig, tokenizer: Tokenizer
) -> tuple[object, ...]:
    return (
        reading.corpus.name, folder.name, config.tokenizer, tokenizer.vocab_size,
        narrowest(tokenizer), reading.bytes, reading.characters,
    )  # fmt: skip


def encode_corpus(
    corpus: Corpus, tokenizer: Tokenizer, split: Split, val_fraction: float
) -> Tokens:
    """Tokenizes one split of any text with an existing tokenizer, without keeping the result.

    Raises:
        CorpusError: the text cannot be read, or the disk cannot hold its tokens.
        TokenizerError: the text has characters that are not in the vocabulary.
    """
    pieces = corpus.pieces()
    if split != "all":
        halves = Halves(pieces, read_corpus(corpus).training_characters(val_fraction))
        pieces = halves.first()
        if split == "val":
            deque(pieces, maxlen=0)  # read past the training part
            pieces = halves.second()
    return mapped_together(encoded(pieces, tokenizer), narrowest(tokenizer))


def _fingerprint(reading: Reading, config: DataConfig, splitting: int) -> str:
    parts = [FORMAT, reading.sha256, config.tokenizer, config.vocab_size, config.val_fraction]
    if splitting > 1 and config.tokenizer in ("word", "bpe"):
        parts.append(splitting)
    if reading.validation is not None:
        parts.append(f"validation {reading.validation.sha256}")
    if config.tokenizer_sha256 is not None:
        parts.append(config.tokenizer_sha256)
    if is_sampled(reading, config):
        parts.append(f"sample of {config.bpe_sample}")
    if reading.documents:
        parts.append(f"documents, validation up to {MOST_VALIDATION}")
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
