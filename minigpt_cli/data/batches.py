"""Training batches as a pure function of the seed and a number."""

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minigpt_cli.config.schema import DataConfig, ModelConfig, TrainConfig
from minigpt_cli.data.token_files import Tokens
from minigpt_cli.errors import CorpusError


def training_batches(
    tokens: Tokens, model: ModelConfig, data: DataConfig, train: TrainConfig
) -> "BatchSampler":
    """The batches that a run with these settings is trained on.

    Raises:
        CorpusError: the split is too short for one window and its target.
    """
    return BatchSampler(tokens, train.batch_size, model.block_size, train.seed, data.sampling)


class BatchSampler:
    """Training windows as a pure function of the seed and the batch's number.

    Nothing is kept between batches, so a resumed run needs no saved position.

    Args:
        tokens: the training split's ids.
        batch_size: B, windows in a batch.
        block_size: T, tokens in a window.
        seed: seed of the choice of windows.
        sampling: `random` draws every window independently; `epochs` tiles the split with windows
            from an offset that changes each epoch, shuffles them, and uses each once.

    Raises:
        CorpusError: the split is too short for one window and its target.
    """

    def __init__(
        self,
        tokens: Tokens,
        batch_size: int,
        block_size: int,
        seed: int,
        sampling: Literal["random", "epochs"],
    ) -> None:
        smaller = (len(tokens) - 1) // 4
        if len(tokens) < block_size + 1:
            raise CorpusError(
                f"the training text has {len(tokens)} tokens and block_size = {block_size} needs "
                f"at least {block_size + 1}; use a longer text"
                + (f", or model.block_size = {smaller}" if smaller >= 8 else ""),
                settings=(f"model.block_size={smaller}",) if smaller >= 8 else (),
            )
        self._tokens, self._batch_size, self._block_size = tokens, batch_size, block_size
        self._seed, self._sampling = seed, sampling
        # One window fewer than would fit leaves room for the epoch's offset.
        self._per_epoch = max(1, (len(tokens) - 1) // block_size - 1)
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """The `number`-th batch: inputs and the tokens that follow them, (B, T) int64 each."""
        starts = self.starts(number)
        windows = self._tokens[starts[:, None] + np.arange(self._block_size + 1)]
        both = torch.from_numpy(windows.astype(np.int64))
        return both[:, :-1].contiguous(), both[:, 1:].contiguous()

    def windows(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """`count` windows, from the `first` of all batches one after another, (count, T) each."""
        size = self._batch_size
        batches = [self.batch(n) for n in range(first // size, (first + count - 1) // size + 1)]
        if len(batches) == 1 and count == size:
            return batches[0]
        skipped = first % size
        x, y = (torch.cat(parts)[skipped : skipped + count] for parts in zip(*batches, strict=True))
        return x, y

    def starts(self, number: int) -> NDArray[np.int64]:
        """Where the windows of a batch begin in the split, (B,)."""
        if self._sampling == "random":
            rng = np.random.default_rng([self._seed, number])
            return rng.integers(0, len(self._tokens) - self._block_size, self._batch_size)
        samples = number * self._batch_size + np.arange(self._batch_size)
        epochs, places = np.divmod(samples, self._per_epoch)
        return np.array(
            [self._epoch(int(epoch))[place] for epoch, place in zip(epochs, places, strict=True)]
        )

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([self._seed, epoch])
        room = len(self._tokens) - 1 - self._per_epoch * self._block_size
        offset = rng.integers(0, room + 1)
        return offset + self._block_size * rng.permutation(self._per_epoch)
