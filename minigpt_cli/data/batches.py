"""Training batches as a pure function of the seed and a number."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minigpt_cli.config.schema import DataConfig, ModelConfig, TrainConfig
from minigpt_cli.data.mixture import Mixture
from minigpt_cli.data.permutation import Permutation
from minigpt_cli.data.tokens.token_files import Tokens
from minigpt_cli.errors import CorpusError
from minigpt_cli.language import _

MOST_STORED = 1 << 22
"""Windows of an epoch up to which its order is stored (32 MB), beyond which it is computed.

Part of the format: with another number, a resumed run would see other batches.
"""


def training_batches(
    tokens: Tokens,
    model: ModelConfig,
    data: DataConfig,
    train: TrainConfig,
    parts: Sequence[int] = (),
) -> "BatchSampler":
    """The batches that a run with these settings is trained on.

    Args:
        tokens: the training split's ids.
        model: says how long a window is.
        data: says how windows are drawn.
        train: says how many are in a batch, and the seed.
        parts: how many of the tokens are of each text, where the texts have weights.

    Raises:
        CorpusError: the split, or a text with a weight, is too short for one window.
    """
    sizes = (train.batch_size, model.block_size, train.seed)
    if parts:
        return MixedSampler(tokens, *sizes, data.sampling, parts, data.weights)
    return BatchSampler(tokens, *sizes, data.sampling)


class Windows:
    """Where the windows of a text begin, as a pure function of the seed and a sample's number.

    Args:
        length: tokens of the text, at least one more than a window has.
        block_size: T, tokens in a window.
        seed: seed of the choice of windows.
    """

    def __init__(self, length: int, block_size: int, seed: int) -> None:
        self._length, self._block_size, self._seed = length, block_size, seed
        # One window fewer than would fit leaves room for the epoch's offset.
        self._per_epoch = max(1, (length - 1) // block_size - 1)
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def in_epochs(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """The starts of windows of which each is used once before any is used again, (N,)."""
        epochs, places = np.divmod(samples, self._per_epoch)
        starts = np.empty_like(samples)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            starts[here] = self._epoch(epoch)(places[here])
        return starts

    def at_random(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """The starts of windows that are drawn independently, (N,)."""
        room = self._length - self._block_size
        draws = [np.random.default_rng([self._seed, n]).integers(0, room) for n in samples.tolist()]
        return np.array(draws, dtype=np.int64)

    def _shuffled(self, epoch: int) -> Callable[[NDArray[np.int64]], NDArray[np.int64]]:
        """Where the windows of an epoch begin, by their places in its order."""
        rng = np.random.default_rng([self._seed, int(epoch)])
        room = self._length - 1 - self._per_epoch * self._block_size
        offset = rng.integers(0, room + 1)
        if self._per_epoch > MOST_STORED:
            order = Permutation(self._per_epoch, rng)
            return lambda places: offset + self._block_size * order.at(places)
        starts = offset + self._block_size * rng.permutation(self._per_epoch)
        return lambda places: starts[places]


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
            problem = _(
                "the training text has {tokens} tokens and block_size = {block_size} needs at "
                "least {least}; use a longer text"
            ).format(tokens=len(tokens), block_size=block_size, least=block_size + 1)
            if smaller < 8:
                raise CorpusError(problem)
            raise CorpusError(
                problem + _(", or model.block_size = {smaller}").format(smaller=smaller),
                settings=(f"model.block_size={smaller}",),
            )
        self._tokens, self._batch_size, self._block_size = tokens, batch_size, block_size
        self._seed, self._sampling = seed, sampling
        self._windows = Windows(len(tokens), block_size, seed)

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
        return self._windows.in_epochs(self._samples(number))

    def _samples(self, number: int) -> NDArray[np.int64]:
        """The numbers of a batch's windows among all windows of the run, (B,)."""
        return number * self._batch_size + np.arange(self._batch_size)


class MixedSampler(BatchSampler):
    """Training windows of several texts, each with a weight; none crosses from one to another.

    Args:
        tokens: the training split's ids, text after text.
        batch_size: B, windows in a batch.
        block_size: T, tokens in a window.
        seed: seed of the choice of windows.
        sampling: how the windows of each text are drawn.
        parts: tokens of each text.
        weights: share of each text in the windows.

    Raises:
        CorpusError: a text is too short for one window and its target.
    """

    def __init__(
        self,
        tokens: Tokens,
        batch_size: int,
        block_size: int,
        seed: int,
        sampling: Literal["random", "epochs"],
        parts: Sequence[int],
        weights: Sequence[float],
    ) -> None:
        super().__init__(tokens, batch_size, block_size, seed, sampling)
        for place, length in enumerate(parts, 1):
            if length < block_size + 1:
                raise CorpusError(
                    _(
                        "text {place} of data.corpus has {tokens} tokens for training and "
                        "block_size = {block_size} needs at least {least}; leave it out, or use a "
                        "longer one"
                    ).format(
                        place=place, tokens=length, block_size=block_size, least=block_size + 1
                    )
                )
        self._mixture = Mixture(weights, seed)
        self._offsets = np.cumsum([0, *parts])[:-1]
        self._texts = [Windows(length, block_size, seed) for length in parts]

    def starts(self, number: int) -> NDArray[np.int64]:
        """Where the windows of a batch begin in the split, (B,)."""
        sources, numbers = self._mixture.at(self._samples(number))
        starts = np.empty_like(numbers)
        for source in np.unique(sources).tolist():
            here, text = sources == source, self._texts[source]
            draw = text.at_random if self._sampling == "random" else text.in_epochs
            starts[here] = self._offsets[source] + draw(numbers[here])
        return starts
