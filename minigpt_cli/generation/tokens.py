"""Writing with a model: read the prompts once, then a token at a time through the cache.

Shapes: B texts side by side, T time, V vocab.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt_cli.errors import ConfigError
from minigpt_cli.generation.decoder import Decoder
from minigpt_cli.generation.sampling import Sampling, generators, sample
from minigpt_cli.model.gpt import GPT
from minigpt_cli.tokenizer.base import StreamDecoder, Tokenizer


def generate(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    stop: Sequence[str] = (),
) -> Iterator[str]:
    """Continues a prompt, piece by piece.

    Pieces are whole characters; joined, they are what decoding all new tokens gives, up to the
    first stop text.

    Raises:
        TokenizerError: the prompt holds characters the tokenizer does not know.
        ConfigError: a stop text is empty.
    """
    ids = [prompt_ids(tokenizer, prompt)]
    for (piece,) in generate_texts(model, tokenizer, ids, max_new_tokens, sampling, stop=stop):
        yield piece.text


@dataclass(frozen=True, slots=True)
class Step:
    """One more token of each text."""

    tokens: list[int | None]
    """None where a text still reads its prompt, or is done."""
    logits: Tensor
    """What they were chosen from, (B, V), before temperature and the rest."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one token adds to a text."""

    text: str = ""
    """Whole characters; empty while the last one, or a stop text, may go on."""
    token: int | None = None
    """None at the end, when what was held back is released."""
    probability: float | None = None
    """How likely the model found the token, before temperature and the rest, if that was asked."""


def generate_texts(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling | None = None,
    num_samples: int = 1,
    stop: Sequence[str] = (),
    exact_window: bool = False,
    probabilities: bool = False,
) -> Iterator[list[Piece]]:
    """Continues prompts side by side, as text.

    Args:
        model: writes without dropout, whatever mode it is in.
        tokenizer: that of the model and the prompts.
        prompts: token ids, at least one each.
        max_new_tokens: at most, for each text.
        sampling: how to choose tokens.
        num_samples: texts for each prompt.
        stop: texts that end a text before they are shown, across the borders of tokens too.
        exact_window: whether to crop and read again past the window (see `generate_tokens`).
        probabilities: whether pieces say how likely the model found them.

    Returns:
        An iterator of the next piece of each text, until all are written.

    Raises:
        ConfigError: a stop text is empty.
    """
    texts = [_Text(tokenizer, stop) for _ in range(len(prompts) * num_samples)]
    steps = generate_tokens(model, prompts, max_new_tokens, sampling, num_samples, exact_window)
    return _pieces(texts, steps, probabilities)


def _pieces(
    texts: "list[_Text]", steps: Iterator[Step], probabilities: bool
) -> Iterator[list[Piece]]:
    for step in steps:
        likely = step.logits.softmax(-1) if probabilities else None
        yield [
            Piece()
            if token is None or text.stopped
            else Piece(text.push(token), token, None if likely is None else float(likely[i, token]))
            for i, (text, token) in enumerate(zip(texts, step.tokens, strict=True))
        ]
        if all(text.stopped for text in texts):
            return
    yield [Piece(text.flush()) for text in texts]


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The prompt's tokens; an empty prompt starts from a line break."""
    return tokenizer.encode(prompt) or tokenizer.start_ids


class _Text:
    """A text as it is written: whole characters, none of a stop text or of what follows it."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        if "" in stop:
            raise ConfigError("--stop: the text is empty; leave it out, or give a text to stop at")
        self._decoder, self._stop = StreamDecoder(tokenizer.token_bytes), stop
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """What can be shown now that this token is here."""
        return self._release(self._decoder.push(token), last=False)

    def flush(self) -> str:
        """What was held back, now that no token follows."""
        return "" if self.stopped else self._release(self._decoder.flush(), last=True)

    def _release(self, piece: str, last: bool) -> str:
        text = self._held + piece
        ends = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if ends:
            self.stopped = True
            return text[: min(ends)]
        # The end of the text may be the beginning of a stop text: it waits until that is known.
        held = 0 if last else max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """How many of the last characters of `text` are the first of `stop`."""
    return next(n for n in range(min(len(text), len(stop)), -1, -1) if text.endswith(stop[:n]))


def generate_tokens(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling | None = None,
    num_samples: int = 1,
    exact_window: bool = False,
) -> Iterator[Step]:
    """Continues each prompt `num_samples` times, all texts side by side.

    Of a longer prompt the last `block_size` tokens are read. Past the window, `modern` models
    slide: the oldest keys make room for new ones. `classic` models have absolute positions, so
    they read the last half window again and go on from there.

    Args:
        model: writes without dropout, whatever mode it is in.
        prompts: at least one token each; their lengths may differ.
        max_new_tokens: how many to write after each prompt.
        sampling: how to choose them; sample i of any prompt has the same random numbers.
        num_samples: texts for each prompt, which follow each other.
        exact_window: past the window, read the last `block_size` tokens again for every token.

    Yields:
        The next token of each text.
    """
    sampling = sampling or Sampling()
    block_size = model.config.block_size
    texts = [list(prompt[-block_size:]) for prompt in prompts for _ in range(num_samples)]
    streams = [stream for _ in prompts for stream in generators(sampling.seed, num_samples)]
    lengths = [len(text) for text in texts]
    unread = torch.tensor([text[: min(lengths)] for text in texts])  # (B, T)
    seen = None
    if sampling.repetition_penalty != 1.0:
        seen = torch.zeros(len(texts), model.vocab_size, dtype=torch.bool)
    with model.evaluating():
        reader = _Reader(model, len(texts), exact_window)
        for i in range(min(lengths), max(lengths) + max_new_tokens):
            logits = reader.read(unread)
            if seen is not None:
                seen.scatter_(1, unread, True)
            # Texts with a longer prompt read on while the others already write.
            rows = [row for row, length in enumerate(lengths) if length <= i]
            drawn = sample(
                logits[rows],
                sampling,
                [streams[row] for row in rows],
                None if seen is None else seen[rows],
            )
            tokens = [text[i] if i < len(text) else 0 for text in texts]
            for row, token in zip(rows, drawn.tolist(), strict=True):
                tokens[row] = token
            unread = torch.tensor(tokens)[:, None]  # (B, 1)
            shown = [length <= i < length + max_new_tokens for length in lengths]
            yield Step([t if show else None for t, show in zip(tokens, shown, strict=True)], logits)


class _Reader:
    """Reads B texts as they grow, and scores what comes next."""

    def __init__(self, model: GPT, batch: int, exact_window: bool) -> None:
        self._model, self._batch = model, batch
        self._decoder, self._cache = Decoder(model), model.new_cache(batch)
        self._rereads = exact_window or not model.has_relative_positions
        window = model.config.block_size
        self._reread = window if exact_window else max(1, window // 2)
        """How much is read again when the window is full."""
        self._history = torch.empty(batch, 0, dtype=torch.long)

    @torch.inference_mode()
    def read(self, unread: Tensor) -> Tensor:
        """Reads on, by a prompt or by a token, (B, T); returns the logits of the next, (B, V)."""
        if self._rereads:
            window = self._cache.window
            self._history = torch.cat((self._history, unread), dim=1)[:, -window:]
            if self._cache.length == window:
                self._cache = self._model.new_cache(self._batch)
                unread = self._history[:, -self._reread :]
        unread = unread.to(self._model.head.weight.device)
        if self._cache.length:
            return self._decoder.read(unread[:, 0], self._cache).cpu()
        logits: Tensor = self._model(unread, cache=self._cache)
        return logits[:, -1].cpu()
