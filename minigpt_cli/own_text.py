"""The text that a model was trained on, found again."""

from pathlib import Path
from typing import Protocol

from minigpt_cli.config import DataConfig
from minigpt_cli.corpus import Progress as DownloadProgress
from minigpt_cli.corpus import open_corpus
from minigpt_cli.dataset import Dataset, prepare_dataset
from minigpt_cli.dataset import Progress as PrepareProgress
from minigpt_cli.errors import CorpusError


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
    data = trained.data
    corpus = open_corpus(data.corpus, data_dir, data.encoding, downloading)
    dataset = prepare_dataset(corpus, data, data_dir, preparing)
    if dataset.facts.fingerprint != trained.fingerprint:
        raise CorpusError(
            f"{corpus.name}: the text has changed since the model was trained on it; "
            "bring it back as it was, or name a text with --data"
        )
    return dataset
