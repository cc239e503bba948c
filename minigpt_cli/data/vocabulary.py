"""The tokenizer of a prepared text: learned from it, or brought along by a model."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import chain

from minigpt_cli.config.schema import DataConfig
from minigpt_cli.data.corpora.corpus import joined
from minigpt_cli.data.progress import Progress
from minigpt_cli.data.reading import Halves, Reading
from minigpt_cli.data.text_sample import spread
from minigpt_cli.errors import CorpusError, TokenizerError
from minigpt_cli.language import _, mark
from minigpt_cli.tokenizer.base import Tokenizer
from minigpt_cli.tokenizer.factory import train_tokenizer

_LEARNING = mark("Learning tokens")


def tokenizer_for(
    reading: Reading,
    config: DataConfig,
    splitting: int,
    brought: Tokenizer | None,
    progress: Progress,
) -> Tokenizer:
    """The tokenizer that the settings ask for.

    Args:
        reading: the text.
        config: how to tokenize it.
        splitting: one of `SPLITTINGS`, for a tokenizer that learns from the text.
        brought: the one that came with the model, if the settings name one.
        progress: called while a tokenizer learns.

    Raises:
        CorpusError: the tokenizer came with a model, and is not there.
        TokenizerError: it has no token for some of the text's characters.
    """
    if config.tokenizer_sha256 is None:
        return _learned(reading, config, splitting, progress)
    if brought is None:
        raise CorpusError(
            _(
                "{name}: the prepared text is gone, and its tokenizer came with the model; restore "
                "the data folder, or train again from that model"
            ).format(name=reading.corpus.name)
        )
    _check_vocabulary(reading, brought)
    return brought


def with_tokenizer(data: DataConfig, tokenizer: Tokenizer) -> DataConfig:
    """The settings with a tokenizer that is brought along instead of learned."""
    sha256 = hashlib.sha256(tokenizer.to_json().encode()).hexdigest()
    return data.model_copy(
        update={"tokenizer": tokenizer.kind, "vocab_size": None, "tokenizer_sha256": sha256}
    )


def _learned(reading: Reading, config: DataConfig, splitting: int, progress: Progress) -> Tokenizer:
    corpus, split = reading.corpus, reading.training_characters(config.val_fraction)
    kind = config.tokenizer
    pieces = Halves(corpus.pieces(progress, _LEARNING), split).first()
    source: Iterable[str] = joined(pieces)
    if kind == "bpe":
        if is_sampled(reading, config):
            source = spread(source, config.bpe_sample, _training_bytes(reading, config))
        source = chain(source, _then(progress))
    if kind == "char":
        source = [text.alphabet for text in reading.texts]
    elif kind == "word":
        source = chain.from_iterable(
            text.corpus.chunks(progress, _LEARNING) for text in reading.texts
        )
    documents = any(text.corpus.has_documents for text in reading.texts)
    return train_tokenizer(kind, source, config.vocab_size, splitting, documents)


def is_sampled(reading: Reading, config: DataConfig) -> bool:
    """Whether `bpe` learns from a part of the text only."""
    return config.tokenizer == "bpe" and 0 < config.bpe_sample < _training_bytes(reading, config)


def _training_bytes(reading: Reading, config: DataConfig) -> int:
    """About how many bytes are for training."""
    training = reading.training_characters(config.val_fraction)
    return reading.bytes * training // reading.characters


def _then(progress: Progress) -> Iterator[str]:
    """No text, but the next stage, when all of the text is read."""
    progress(mark("Learning merges"), 0, 0)
    yield from ()


def _check_vocabulary(reading: Reading, tokenizer: Tokenizer) -> None:
    """Raises unless a vocabulary of characters, from another text, covers this one."""
    if tokenizer.kind != "char":
        return
    alphabet = {char for text in reading.texts for char in text.alphabet}
    unknown = sorted(alphabet - {token.decode() for token in tokenizer.token_bytes})
    if unknown:
        shown = _(", ").join(f"{char!r} (U+{ord(char):04X})" for char in unknown[:8])
        if len(unknown) > 8:
            shown += _(" and {more} more").format(more=len(unknown) - 8)
        raise TokenizerError(
            _(
                "{name}: the model's vocabulary lacks {characters}; remove these characters from "
                "the text, or train a new model on both texts: minigpt train --data OLD --data "
                "{text} --tokenizer bpe, which knows every character, as byte does"
            ).format(name=reading.corpus.name, characters=shown, text=_named(reading))
        )


def _named(reading: Reading) -> str:
    """The text as a user would name it."""
    files = reading.corpus.files
    return str(files[0].path) if len(files) == 1 else reading.corpus.name
