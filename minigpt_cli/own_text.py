"""The text that a model was trained on, found again."""

from pathlib import Path

from minigpt_cli.checkpoint_header import CheckpointFacts
from minigpt_cli.corpus import Progress as DownloadProgress
from minigpt_cli.corpus import open_corpus
from minigpt_cli.dataset import Dataset, prepare_dataset
from minigpt_cli.dataset import Progress as PrepareProgress
from minigpt_cli.errors import CorpusError


def own_dataset(
    facts: CheckpointFacts,
    data_dir: Path,
    downloading: DownloadProgress,
    preparing: PrepareProgress,
) -> Dataset:
    """Opens or prepares the text of a checkpoint, cut as it was for training.

    Raises:
        CorpusError: the text is not there any more, or has changed since.
    """
    data = facts.data
    corpus = open_corpus(data.corpus, data_dir, data.encoding, downloading)
    dataset = prepare_dataset(corpus, data, data_dir, preparing)
    if dataset.facts.fingerprint != facts.fingerprint:
        raise CorpusError(
            f"{corpus.name}: the text has changed since the model was trained on it; "
            "bring it back as it was, or name a text with --data"
        )
    return dataset
