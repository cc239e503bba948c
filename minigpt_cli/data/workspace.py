"""Where texts are kept on this machine, and how to get one from there."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from minigpt_cli.config.schema import DataConfig
from minigpt_cli.data.corpus import Corpus, open_corpus
from minigpt_cli.data.dataset import Dataset, find_prepared, prepare_dataset
from minigpt_cli.data.progress import Progress, no_progress
from minigpt_cli.errors import CorpusError

_FINGERPRINT = re.compile("[0-9a-f]{16}")


class HasText(Protocol):
    """Something trained on a text: a checkpoint, or a saved run."""

    @property
    def data(self) -> DataConfig: ...
    @property
    def fingerprint(self) -> str: ...


@dataclass(frozen=True)
class Workspace:
    """The folder of downloaded and prepared texts."""

    data_dir: Path
    progress: Progress = no_progress
    """Called while a text is downloaded, read and prepared."""
    note: Callable[[str], None] = lambda _: None
    """Called when a text is not the one that its name stands for now."""

    def corpus(self, sources: tuple[str, ...], encoding: str = "utf-8") -> Corpus:
        """Finds or downloads the text that `sources` name.

        Args:
            sources: known corpora, files or folders.
            encoding: encoding of all files; downloaded ones are UTF-8.

        Raises:
            CorpusError: a source is missing, empty or cannot be downloaded.
        """
        return open_corpus(sources, self.data_dir, encoding, self.progress)

    def dataset(self, config: DataConfig) -> Dataset:
        """Downloads and tokenizes a text, or finds it already prepared.

        Raises:
            CorpusError: the text is missing or unreadable, or the disk cannot hold the result.
            TokenizerError: the tokenizer's settings are impossible.
        """
        corpus = self.corpus(config.corpus, config.encoding)
        own = self.corpus(config.val_corpus, config.encoding) if config.val_corpus else None
        return prepare_dataset(corpus, config, self.data_dir, self.progress, own)

    def own_dataset(self, trained: HasText) -> Dataset:
        """Finds or prepares the text that a model was trained on, tokenized as in training.

        A text that has grown, moved or gone since is taken as it was prepared then.

        Raises:
            CorpusError: the text is missing or has changed since, and its prepared form is gone.
        """
        problem, dataset = "", None
        try:
            dataset = self.dataset(trained.data)
        except CorpusError as error:
            problem = str(error)
        else:
            if dataset.metadata.fingerprint == trained.fingerprint:
                return dataset
            problem = f"{dataset.metadata.corpus}: the text has changed since the model was trained"
        if not _FINGERPRINT.fullmatch(trained.fingerprint):
            prepared = None  # of a checkpoint that minigpt did not write
        else:
            prepared = find_prepared(self.data_dir, trained.fingerprint)
        if prepared is None:
            raise CorpusError(
                f"{problem}, and there is no copy as it was prepared under {self.data_dir} "
                f"(*/{trained.fingerprint}); restore the original text, name the file that it is "
                "in now, or use the data folder of that time",
                settings=("data.corpus", "data_dir"),
            )
        self.note(f"{problem}; going on with the text as it was prepared then: {prepared.folder}")
        return prepared
