"""Writing text: prompts in, whole characters out, up to the first stop text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from minigpt_cli.errors import ConfigError
from minigpt_cli.generation.sampling import Sampling
from minigpt_cli.generation.tokens import GenerationRequest, NextTokens, generate_tokens
from minigpt_cli.language import _
from minigpt_cli.model.gpt import GPT
from minigpt_cli.tokenizer.base import StreamDecoder, Tokenizer


class TextModel(Protocol):
    """A model and the tokenizer it was trained with; a `Checkpoint` is one."""

    @property
    def model(self) -> GPT: ...

    @property
    def tokenizer(self) -> Tokenizer: ...


class ModelAndTokenizer(NamedTuple):
    """A `TextModel` that is not in a checkpoint."""

    model: GPT
    tokenizer: Tokenizer


@dataclass(frozen=True, slots=True)
class Piece:
    """What one token adds to a text."""

    text: str = ""
    """Whole characters; empty while a character or a possible stop text is incomplete."""
    token: int | None = None
    """None at the end, when text that was held back is released."""
    probability: float | None = None
    """The model's probability for the token, before temperature and the rest; None unless asked."""


def generate(
    checkpoint: TextModel,
    prompt: str,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    stop: Sequence[str] = (),
) -> Iterator[str]:
    """Continues a prompt, piece by piece.

    Pieces are whole characters. Joined, they are the decoded new tokens, up to the first stop text.

    Args:
        checkpoint: a model and its tokenizer; writes without dropout.
        prompt: the text to continue; an empty one starts from a line break.
        max_new_tokens: the most tokens to write.
        sampling: how to choose tokens; the defaults of `Sampling` unless given.
        stop: texts to end before.

    Raises:
        TokenizerError: the prompt contains characters the tokenizer does not know.
        ConfigError: a stop text is empty.
    """
    ids = prompt_ids(checkpoint.tokenizer, prompt)
    request = GenerationRequest([ids], max_new_tokens, sampling or Sampling())
    for (piece,) in generate_texts(checkpoint, request, stop):
        yield piece.text


def generate_texts(
    checkpoint: TextModel,
    request: GenerationRequest,
    stop: Sequence[str] = (),
    probabilities: bool = False,
) -> Iterator[list[Piece]]:
    """Continues prompts side by side, as text, without dropout.

    Args:
        checkpoint: a model and its tokenizer.
        request: what to write.
        stop: texts to end before, even where they span several tokens.
        probabilities: whether pieces carry the probabilities of their tokens.

    Returns:
        An iterator over the next piece of each text, until all are finished.

    Raises:
        ConfigError: a stop text is empty.
    """
    texts = [_Text(checkpoint.tokenizer, stop) for _ in range(request.batch)]
    return _pieces(texts, generate_tokens(checkpoint.model, request), probabilities)


def _pieces(
    texts: "list[_Text]", steps: Iterator[NextTokens], with_probabilities: bool
) -> Iterator[list[Piece]]:
    for step in steps:
        probabilities = step.logits.softmax(-1) if with_probabilities else None
        pieces = []
        for i, (text, token) in enumerate(zip(texts, step.tokens, strict=True)):
            if token is None or text.stopped:
                pieces.append(Piece())
            else:
                probability = None if probabilities is None else float(probabilities[i, token])
                pieces.append(Piece(text.push(token), token, probability))
        yield pieces
        if all(text.stopped for text in texts):
            return
    yield [Piece(text.flush()) for text in texts]


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The prompt's tokens; an empty prompt starts from a line break.

    Raises:
        TokenizerError: the prompt contains characters the tokenizer does not know.
    """
    return tokenizer.encode(prompt) or tokenizer.start_ids


class _Text:
    """A text while it is written: releases whole characters, and nothing from a stop text on."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        if "" in stop:
            raise ConfigError(
                _("stop: a text to stop at is empty; remove it, or give a longer one")
            )
        self._decoder, self._stop = StreamDecoder(tokenizer.token_bytes), stop
        self._end_ids = tokenizer.end_ids
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Adds a token; returns the text that can now be shown."""
        if token in self._end_ids:
            text, self.stopped = self.flush(), True
            return text
        return self._release(self._decoder.push(token), last=False)

    def flush(self) -> str:
        """Returns the text that was held back, since no token follows."""
        return "" if self.stopped else self._release(self._decoder.flush(), last=True)

    def _release(self, piece: str, last: bool) -> str:
        text = self._held + piece
        ends = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if ends:
            self.stopped = True
            return text[: min(ends)]
        # The end of the text may be the beginning of a stop text: hold it back until that is known.
        held = 0 if last else max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that is a beginning of `stop`."""
    return next(n for n in range(min(len(text), len(stop)), -1, -1) if text.endswith(stop[:n]))
