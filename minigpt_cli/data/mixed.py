"""Several texts with weights as one dataset, each prepared by itself with the same tokenizer."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pydantic import TypeAdapter

from minigpt_cli.config.choices import Split
from minigpt_cli.config.schema import DataConfig
from minigpt_cli.data.corpora.corpus import Corpus, joined
from minigpt_cli.data.corpora.known_texts import read_texts, recorded_texts
from minigpt_cli.data.dataset import Dataset, TextChangedError, find_prepared, prepare_dataset
from minigpt_cli.data.metadata import TOKENIZER, DatasetMetadata, stored_tokenizer
from minigpt_cli.data.progress import Progress
from minigpt_cli.data.reading import Halves, Reading
from minigpt_cli.data.text_sample import spread
from minigpt_cli.data.tokens.layout import SPLITS, layout_of
from minigpt_cli.data.tokens.sharded_tokens import ShardedTokens
from minigpt_cli.data.tokens.token_files import Tokens, narrowest
from minigpt_cli.data.vocabulary import with_tokenizer
from minigpt_cli.errors import CorpusError, TokenizerError, reraise_as
from minigpt_cli.io.atomic import replacing
from minigpt_cli.io.permissions import enterable, restrict
from minigpt_cli.io.regular import read_bounded
from minigpt_cli.language import _, mark
from minigpt_cli.tokenizer.base import SPLITTINGS, Tokenizer
from minigpt_cli.tokenizer.factory import check_settings, tokenizer_from_json, train_tokenizer

_FORMAT = 1
MANIFEST = "mixture.json"
"""The texts of a mixture: name and fingerprint of each."""
_Parts = TypeAdapter(list[tuple[str, str]])
_MOST_MANIFEST = 1 << 20


@dataclass(frozen=True)
class MixedDataset(Dataset):
    """Texts that are prepared by themselves; a split is that of one after the other."""

    parts: tuple[Dataset, ...] = ()

    def tokens(self, split: Split) -> Tokens:
        """The token ids of one split, or of the whole text, mapped from disk."""
        files = [
            (layout.folder / file.name, file.tokens)
            for each in SPLITS
            if split in (each, "all")
            for layout in (layout_of(part.folder, part.metadata) for part in self._parts_of(each))
            for file in layout.files
            if file.split == each
        ]
        return ShardedTokens(files, self.metadata.dtype)

    def _parts_of(self, split: Split) -> Sequence[Dataset]:
        """The parts that have tokens of their own in a split: a validation text is in each."""
        shared = split == "val" and self.reading.validation is not None
        return self.parts[:1] if shared else self.parts

    @property
    def train_parts(self) -> tuple[int, ...]:
        return tuple(part.metadata.train_tokens for part in self.parts)

    @property
    def readings(self) -> tuple[Reading, ...]:
        return tuple(part.reading for part in self.parts)


def prepare_mixture(
    corpora: Sequence[Corpus],
    config: DataConfig,
    data_dir: Path,
    progress: Progress,
    expected: str | None = None,
    tokenizer: Tokenizer | None = None,
    validation: Corpus | None = None,
    verify: bool = False,
) -> MixedDataset:
    """Prepares several texts, each with a validation part of its own, or finds them prepared.

    The tokenizer is learned from all of them. The arguments are those of `prepare_dataset`, with a
    corpus for each weight.

    Raises:
        TextChangedError: the texts are not the expected ones.
        CorpusError: a text cannot be read, or the disk cannot hold the result.
        TokenizerError: the tokenizer's settings are impossible.
    """
    documents = any(corpus.has_documents for corpus in corpora)
    if config.tokenizer_sha256 is None:
        check_settings(config.tokenizer, config.vocab_size, documents)
    readings = [_reading(corpus, validation, data_dir, progress, verify) for corpus in corpora]
    fingerprint = _fingerprint(readings, config)
    name = "+".join(corpus.name for corpus in corpora)[:60]
    if expected not in (None, fingerprint):
        raise TextChangedError(
            _(
                "{name}: the text has changed since the model was trained on it; restore the "
                "original text, or train a new model"
            ).format(name=name)
        )
    folder = data_dir / name / fingerprint
    if tokenizer is None:
        tokenizer = _saved_tokenizer(folder)
    if tokenizer is None:
        if config.tokenizer_sha256 is not None:
            raise CorpusError(
                _(
                    "{name}: the prepared text is gone, and its tokenizer came with the model; "
                    "restore the data folder, or train again from that model"
                ).format(name=name)
            )
        tokenizer = _learned(readings, config, documents, progress)
    each = with_tokenizer(config.model_copy(update={"weights": ()}), tokenizer)
    parts = tuple(
        prepare_dataset(corpus, each, data_dir, progress, None, tokenizer, validation, verify)
        for corpus in corpora
    )
    _write(folder, tokenizer, parts, min(corpus.permissions for corpus in corpora))
    return _mixed(folder, tokenizer, parts)


def find_mixture(data_dir: Path, fingerprint: str, verify: bool = False) -> MixedDataset | None:
    """A mixture that was prepared earlier, by its fingerprint alone; None if it is not there."""
    for folder in sorted(data_dir.glob(f"*/{fingerprint}")):
        tokenizer = _saved_tokenizer(folder)
        try:
            named = _Parts.validate_json(read_bounded(folder / MANIFEST, _MOST_MANIFEST))
        except (OSError, ValueError):
            continue
        found = [find_prepared(data_dir, each, verify) for _name, each in named]
        parts = tuple(part for part in found if part is not None)
        if tokenizer is not None and parts and len(parts) == len(named):
            return _mixed(folder, tokenizer, parts)
    return None


def _reading(
    corpus: Corpus, validation: Corpus | None, data_dir: Path, progress: Progress, verify: bool
) -> Reading:
    known = None if verify else recorded_texts(data_dir / corpus.name, corpus, validation)
    return (known or read_texts(corpus, validation, progress)).reading


def _fingerprint(readings: Sequence[Reading], config: DataConfig) -> str:
    texts = [[text.sha256 for text in reading.texts] for reading in readings]
    documents = [bool(reading.documents) for reading in readings]
    parts = [_FORMAT, "mixture", texts, documents, config.tokenizer, config.vocab_size,
             config.val_fraction, config.tokenizer_sha256, _sample(readings, config)]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _sample(readings: Sequence[Reading], config: DataConfig) -> tuple[int, int] | None:
    """How much of how many bytes `bpe` learns from; None for all."""
    total = sum(
        reading.bytes * reading.training_characters(config.val_fraction) // reading.characters
        for reading in readings
    )
    wanted = config.tokenizer == "bpe" and 0 < config.bpe_sample < total
    return (config.bpe_sample, total) if wanted else None


def _learned(
    readings: Sequence[Reading], config: DataConfig, documents: bool, progress: Progress
) -> Tokenizer:
    """A tokenizer of all texts: `bpe` learns from their training parts, the others know all."""
    stage = mark("Learning tokens")

    sample = _sample(readings, config)

    def training(reading: Reading) -> Iterator[str]:
        split = reading.training_characters(config.val_fraction)
        chunks = joined(Halves(reading.corpus.pieces(progress, stage), split).first())
        return chunks if sample is None else spread(chunks, *sample)

    texts = [text for reading in readings for text in reading.texts]
    if config.tokenizer == "char":
        chunks: Iterator[str] = (text.alphabet for text in texts)
    elif config.tokenizer == "word":
        chunks = chain.from_iterable(text.corpus.chunks(progress, stage) for text in texts)
    else:
        chunks = chain.from_iterable(map(training, readings))
    return train_tokenizer(config.tokenizer, chunks, config.vocab_size, SPLITTINGS[0], documents)


def _saved_tokenizer(folder: Path) -> Tokenizer | None:
    try:
        return tokenizer_from_json(stored_tokenizer(folder).decode())
    except (OSError, ValueError, TokenizerError):
        return None


def _write(folder: Path, tokenizer: Tokenizer, parts: Sequence[Dataset], permissions: int) -> None:
    """Keeps what `find_mixture` needs."""
    manifest = json.dumps([[part.folder.parent.name, part.folder.name] for part in parts])
    files = {TOKENIZER: tokenizer.to_json(), MANIFEST: manifest}
    hint = _("free some space or choose another data folder")
    with reraise_as(CorpusError, folder, "written", hint=hint, settings=("data_dir",)):
        if all(_holds(folder / name, text.encode()) for name, text in files.items()):
            return
        folder.mkdir(parents=True, exist_ok=True)
        restrict(folder, enterable(permissions))
        for name, text in files.items():
            with replacing(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
            restrict(folder / name, permissions)


def _holds(path: Path, content: bytes) -> bool:
    try:
        return read_bounded(path, len(content)) == content
    except (FileNotFoundError, ValueError):  # also where it is longer
        return False


def _mixed(folder: Path, tokenizer: Tokenizer, parts: tuple[Dataset, ...]) -> MixedDataset:
    found = [part.metadata for part in parts]
    readings = [part.reading for part in parts]
    validation = readings[0].validation
    metadata = DatasetMetadata(
        corpus=folder.parent.name,
        fingerprint=folder.name,
        kind=tokenizer.kind,
        vocab_size=tokenizer.vocab_size,
        dtype=narrowest(tokenizer),
        text_bytes=sum(each.text_bytes for each in found),
        characters=sum(each.characters for each in found),
        train_tokens=sum(each.train_tokens for each in found),
        val_tokens=sum(each.val_tokens for each in (found[:1] if validation else found)),
        sha256=hashlib.sha256("".join(each.sha256 for each in found).encode()).hexdigest(),
        tokenizer_sha256=hashlib.sha256(tokenizer.to_json().encode()).hexdigest(),
        seconds=sum(each.seconds for each in found),
    )
    corpus = Corpus(
        folder.parent.name,
        tuple(file for reading in readings for file in reading.corpus.files),
        left_out=tuple(item for reading in readings for item in reading.corpus.left_out),
        notes=tuple(note for reading in readings for note in reading.corpus.notes),
    )
    reading = Reading(
        corpus, "", metadata.text_bytes,
        tuple(count for reading in readings for count in reading.file_characters), "",
        validation=validation,
    )  # fmt: skip
    return MixedDataset(folder, metadata, tokenizer, reading, parts)
