"""The text that a model is or was trained on, cut into tokens."""

from pathlib import Path
from typing import Protocol

from minigpt_cli.config.schema import DataConfig
from minigpt_cli.data.corpus import Progress as DownloadProgress
from minigpt_cli.data.corpus import open_corpus
from minigpt_cli.data.dataset import Dataset, prepare_dataset
from minigpt_cli.data.dataset import Progress as PrepareProgress
from minigpt_cli.errors import CorpusError


def prepared_text(
    data: DataConfig,
    data_dir: Path,
    downloading: DownloadProgress,
    preparing: PrepareProgress,
) -> Dataset:
    """Fetches a corpus and tokenizes it, or finds that done.

    Raises:
        CorpusError: the text cannot be had or read, or the disk cannot take the result.
        TokenizerError: the tokenizer's settings are impossible.
    """
    corpus = open_corpus(data.corpus, data_dir, data.encoding, downloading)
    return prepare_dataset(corpus, data, data_dir, preparing)


class HasText(Protocol):
    """Something that was trained on a text: a checkpoint, or a run."""

    @property
    def data(self) -> DataConfig: ...
    @property
    def fingerprint(self) -> str: ...


def own_dataset(
    trained: HasText,
    data_dir: Path,
    downloading: DownloadProgress,
    preparing: PrepareProgress,
) -> Dataset:
    """Opens or prepares the text of a model, cut as it was for training.

    Raises:
        CorpusError: the text is not there any more, or has changed since.
    """
    dataset = prepared_text(trained.data, data_dir, downloading, preparing)
    if dataset.metadata.fingerprint != trained.fingerprint:
        raise CorpusError(
            f"{dataset.metadata.corpus}: the text has changed since the model was trained on it; "
            "bring it back as it was, or name a text with --data"
        )
    return dataset
