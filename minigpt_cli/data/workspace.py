"""Where texts are kept on this machine, and how to get one from there."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from minigpt_cli.config.schema import DataConfig
from minigpt_cli.data.corpora.consent import check_named
from minigpt_cli.data.corpora.corpus import Corpus, open_corpus
from minigpt_cli.data.corpora.sources import Finding
from minigpt_cli.data.dataset import (
    Dataset,
    TextChangedError,
    find_prepared,
    prepare_dataset,
)
from minigpt_cli.data.mixed import find_mixture, prepare_mixture
from minigpt_cli.data.progress import Progress, no_progress
from minigpt_cli.errors import CorpusError
from minigpt_cli.language import _
from minigpt_cli.tokenizer.base import Tokenizer
from minigpt_cli.tokenizer.factory import tokenizer_from_json

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
    note: Callable[[str], None] = lambda _note: None
    """Called when a text is not the one that its name stands for now."""
    verify: bool = False
    """Whether texts and tokens are read again even if their files seem unchanged."""

    def corpus(
        self,
        sources: tuple[str, ...],
        config: DataConfig,
        failed: Callable[[Path, CorpusError], None] | None = None,
    ) -> Corpus:
        """Finds or downloads the text that `sources` name.

        Args:
            sources: known corpora, files, folders or patterns of these.
            config: how they are read.
            failed: called with a file that cannot be read, which is then left out.

        Raises:
            CorpusError: a source is missing, empty or cannot be downloaded.
        """
        find = Finding(config.include, config.format == "text", config.text_field, failed)
        return open_corpus(
            sources, self.data_dir, config.encoding, config.newlines, self.progress,
            config.documents, find,
        )  # fmt: skip

    def dataset(self, config: DataConfig, tokenizer: Tokenizer | None = None) -> Dataset:
        """Downloads and tokenizes a text, or finds it already prepared.

        Args:
            config: the text, and how to tokenize it.
            tokenizer: the one that came with the model, if the settings name one.

        Raises:
            CorpusError: the text is missing or unreadable, or the disk cannot hold the result.
            TokenizerError: the tokenizer's settings are impossible.
        """
        return self._prepared(config, None, tokenizer)

    def own_dataset(self, trained: HasText, named: Collection[str] = ()) -> Dataset:
        """Finds or prepares the text that a model was trained on, tokenized as in training.

        A text that has grown, moved or gone since is taken as it was prepared then, unless the user
        names one now: that must be the same.

        Args:
            trained: what was trained.
            named: settings among its `data` that are the user's own, such as `data.corpus`.

        Raises:
            CorpusError: the text is missing or has changed since, and its prepared form is gone;
                nothing is written. Or it is a file that only the model names, not the user.
        """
        if not trained.fingerprint:
            raise CorpusError(
                _(
                    "the model comes from elsewhere, and its training text is not known; pass a "
                    "text with --data"
                )
            )
        check_named(trained.data, trained.fingerprint, self.data_dir, named)
        if named:
            return self._same_dataset(trained)
        try:
            return self._same_dataset(trained)
        except CorpusError as error:
            problem, is_new = str(error), isinstance(error, TextChangedError)
            problem = problem.partition(_("; "))[0]  # without its fix
        # A fingerprint of another form is of a file that minigpt did not write.
        is_ours = _FINGERPRINT.fullmatch(trained.fingerprint)
        prepared = self._found(trained.fingerprint) if is_ours else None
        if prepared is None:
            raise CorpusError(
                _(
                    "{problem}; and its prepared copy is gone from {folder} (*/{fingerprint}); "
                    "restore the original text, name the file that it is in now, or use the data "
                    "folder of that time"
                ).format(problem=problem, folder=self.data_dir, fingerprint=trained.fingerprint),
                settings=("data.corpus", "data_dir"),
            )
        note = _("{problem}; going on with the text as it was prepared then: {folder}").format(
            problem=problem, folder=prepared.folder
        )
        instead = _("; to train on the new text, begin from this model (train --init-from)")
        self.note(note + (instead if is_new else ""))
        return prepared

    def _same_dataset(self, trained: HasText) -> Dataset:
        """Finds or prepares a text that must be the one a model was trained on.

        Raises:
            CorpusError: it is another text; nothing is written.
        """
        tokenizer = self._brought_tokenizer(trained)
        try:
            return self._prepared(trained.data, trained.fingerprint, tokenizer)
        except TextChangedError:
            if trained.data.newlines == "keep":
                raise
        # minigpt 0.1.0 kept line endings, and did not record it.
        kept = trained.data.model_copy(update={"newlines": "keep"})
        return self._prepared(kept, trained.fingerprint, tokenizer)

    def _brought_tokenizer(self, trained: HasText) -> Tokenizer | None:
        """The tokenizer that came with the model that training began from, if it did."""
        if trained.data.tokenizer_sha256 is None:
            return None
        saved = getattr(trained, "tokenizer", None)  # a checkpoint has it; a saved run does not
        if isinstance(saved, str):
            return tokenizer_from_json(saved)
        prepared = self._found(trained.fingerprint)
        return prepared.tokenizer if prepared else None

    def _found(self, fingerprint: str) -> Dataset | None:
        """What was prepared earlier, by its fingerprint alone; None if it is not there."""
        mixture = find_mixture(self.data_dir, fingerprint, self.verify)
        return mixture or find_prepared(self.data_dir, fingerprint, self.verify)

    def _prepared(
        self, config: DataConfig, expected: str | None, tokenizer: Tokenizer | None
    ) -> Dataset:
        own = self.corpus(config.val_corpus, config) if config.val_corpus else None
        if config.weights:
            corpora = [self.corpus((source,), config) for source in config.corpus]
            return prepare_mixture(
                corpora, config, self.data_dir, self.progress, expected, tokenizer, own, self.verify
            )
        corpus = self.corpus(config.corpus, config)
        return prepare_dataset(
            corpus, config, self.data_dir, self.progress, expected, tokenizer, own, self.verify
        )
