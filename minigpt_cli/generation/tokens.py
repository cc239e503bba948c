"""The loop over token ids: read the prompts once, then a token at a time through the cache.

Shapes: B texts side by side, T time, V vocab.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from minigpt_cli.generation.compiled import decoder_for
from minigpt_cli.generation.sampling import Sampling, generators, sample, uniform_numbers
from minigpt_cli.model.gpt import GPT, check_logits


@dataclass(frozen=True)
class GenerationRequest:
    """What to write."""

    prompts: Sequence[Sequence[int]]
    """Token ids, at least one per prompt; lengths may differ."""
    max_new_tokens: int
    """The most tokens to write after each prompt."""
    sampling: Sampling = field(default_factory=Sampling)
    """How to choose tokens; sample i of every prompt has the same random numbers."""
    num_samples: int = 1
    """Texts per prompt; those of one prompt are adjacent."""
    exact_window: bool = False
    """Past the window, read the last `block_size` tokens again for every token."""

    @property
    def batch(self) -> int:
        """B, the number of texts."""
        return len(self.prompts) * self.num_samples


@dataclass(frozen=True, slots=True)
class NextTokens:
    """One more token of each text."""

    tokens: list[int | None]
    """None where a text is still reading its prompt, or is finished."""
    logits: Tensor
    """The scores they were chosen from, (B, V), before temperature and the rest."""


def generate_tokens(model: GPT, request: GenerationRequest) -> Iterator[NextTokens]:
    """Writes all texts of a request side by side.

    In fp32, each is the text that it would be alone. In bf16 the prompts of several texts are
    rounded differently from that of one, and so is what follows them unless it is decoded in C; so
    a close choice may fall the other way.

    Only the last `block_size` tokens of a prompt are read. Past the window, a model with relative
    positions slides: new tokens replace the oldest in the cache. A model with absolute positions
    reads the last half window again and continues from there. Dropout is off.

    Yields:
        The next token of each text.

    Raises:
        NonFiniteError: the model computes NaN or infinity.
    """
    sampling, block_size = request.sampling, model.config.block_size
    num_samples, max_new_tokens = request.num_samples, request.max_new_tokens
    texts = [list(prompt[-block_size:]) for prompt in request.prompts for _ in range(num_samples)]
    streams = [stream for _ in request.prompts for stream in generators(sampling.seed, num_samples)]
    lengths = [len(text) for text in texts]
    numbers = uniform_numbers(streams, lengths)
    new_tokens = torch.tensor([text[: min(lengths)] for text in texts])  # (B, T)
    seen_mask = None
    if sampling.repetition_penalty != 1.0:
        seen_mask = torch.zeros(request.batch, model.vocab_size, dtype=torch.bool)
    with model.evaluating():
        most = max(lengths) + max_new_tokens
        reader = _Reader(model, request.batch, request.exact_window, most)
        for i in range(min(lengths), max(lengths) + max_new_tokens):
            with torch.inference_mode():
                logits = reader.read(new_tokens)
                if seen_mask is not None:
                    seen_mask.scatter_(1, new_tokens, True)
                drawn = sample(logits, sampling, next(numbers), seen_mask).tolist()
                # Texts with a longer prompt are still reading while the others write.
                tokens = [
                    text[i] if i < len(text) else token
                    for text, token in zip(texts, drawn, strict=True)
                ]
                new_tokens = torch.tensor(tokens).unsqueeze(1)  # (B, 1)
            written = [length <= i < length + max_new_tokens for length in lengths]
            yield NextTokens(
                [token if new else None for token, new in zip(tokens, written, strict=True)], logits
            )


class _Reader:
    """Reads B texts as they grow, and scores the next token of each."""

    def __init__(self, model: GPT, batch: int, exact_window: bool, most: int) -> None:
        self._model, self._batch, self._most = model, batch, most
        self._decoder = decoder_for(model)
        self._cache = self._decoder.new_cache(batch, most)
        self._rereads = exact_window or not model.has_relative_positions
        window = model.config.block_size
        self._reread = window if exact_window else max(1, window // 2)
        """Tokens to read again when the window is full."""
        self._history = torch.empty(batch, 0, dtype=torch.long)

    def read(self, new_tokens: Tensor) -> Tensor:
        """Reads a prompt or a token, (B, T); returns the logits of the next token, (B, V).

        Raises:
            NonFiniteError: they are NaN or infinite.
        """
        if self._rereads:
            window = self._model.config.block_size
            self._history = torch.cat((self._history, new_tokens), dim=1)[:, -window:]
            if self._cache.length == window:
                self._cache = self._decoder.new_cache(self._batch, self._most)
                new_tokens = self._history[:, -self._reread :]
        new_tokens = new_tokens.to(self._model.head.weight.device)
        if self._cache.length:
            return check_logits(self._decoder.read(new_tokens[:, 0], self._cache).cpu())
        logits: Tensor = self._model(new_tokens, cache=self._cache)
        return check_logits(logits[:, -1].cpu())
