"""The interface of all tokenizers, and decoding token by token."""

import codecs
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minigpt_cli.config.choices import TokenizerKind
from minigpt_cli.errors import TokenizerError
from minigpt_cli.language import _

SPLITTINGS = (2, 1)
"""Versions of how `word` and `bpe` split a text before anything else, the newest first.

1 splits words at combining marks, which takes apart every script that has them. A saved tokenizer
splits as it did when it was trained.
"""

END_OF_TEXT = "<|endoftext|>"
"""What the end-of-text token is called where it is shown; in a text this is like any other."""
_TOGETHER, _MOST_TOGETHER = 1 << 20, 1024
"""Characters, and documents, that are encoded at a time."""


class Job(NamedTuple):
    """Texts whose ids do not depend on any other text: a share of the work of encoding."""

    texts: tuple[str, ...]
    ended: bool
    """Whether the end-of-text token follows each; without texts, it stands alone."""


class Tokenizer(ABC):
    """A vocabulary of byte strings, and a way to split text into them.

    Every token is a fixed sequence of UTF-8 bytes, possibly only part of a character, so decoding,
    streaming and bits per byte work the same for all kinds.
    """

    kind: ClassVar[TokenizerKind]

    token_bytes: list[bytes]
    """The bytes of each token, by id."""

    unknown_id: int | None = None
    """The id of `<unk>`, if the tokenizer has one."""

    end_of_text: int | None = None
    """The id that ends a document, if the vocabulary has one.

    It stands for no bytes and no text is encoded to it, not even `<|endoftext|>`.
    """

    end_ids: frozenset[int] = frozenset()
    """Tokens that end a text: that one, and in models trained elsewhere perhaps others."""

    @property
    def vocab_size(self) -> int:
        return len(self.token_bytes)

    @abstractmethod
    def encode_array(self, text: str) -> NDArray[np.uint32]:
        """Splits a text into token ids, (T,).

        Raises:
            TokenizerError: the text contains something that the vocabulary cannot encode.
        """

    @abstractmethod
    def to_json(self) -> str:
        """The whole tokenizer as JSON; `tokenizer_from_json` rebuilds it."""

    def text_lengths(self, text: str) -> NDArray[np.int32]:
        """Bytes of the text that each token of `encode_array` covers, (T,)."""
        lengths = np.array([len(token) for token in self.token_bytes], dtype=np.int32)
        return lengths[self.encode_array(text)]

    def encode(self, text: str) -> list[int]:
        """Like `encode_array`, as a list."""
        ids: list[int] = self.encode_array(text).tolist()
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Joins the tokens' text; invalid UTF-8 becomes U+FFFD."""
        return b"".join(self.token_bytes[i] for i in ids).decode("utf-8", errors="replace")

    def encode_chunks(self, chunks: Iterable[str]) -> Iterator[NDArray[np.uint32]]:
        """Encodes a text given in pieces; the result does not depend on where they are split."""
        for job in self.jobs(chunks):
            yield self.encode_job(job)

    def jobs(self, chunks: Iterable[str]) -> Iterator[Job]:
        """The work of encoding a text given in pieces, in shares that others may take."""
        return (Job((chunk,), ended=False) for chunk in self.independent(chunks))

    def independent(self, chunks: Iterable[str]) -> Iterator[str]:
        """The same text in other pieces, such that no token is split between two."""
        return iter(chunks)

    def encode_job(self, job: Job) -> NDArray[np.uint32]:
        """The ids of a share of the work.

        Raises:
            TokenizerError: the text contains something that the vocabulary cannot encode.
        """
        if not job.ended:
            return self.encode_array(*job.texts)
        end = np.array([self.end_of_text], dtype=np.uint32)
        if not job.texts:
            return end
        return np.concatenate([part for ids in self.encode_texts(job.texts) for part in (ids, end)])

    def encode_texts(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Encodes texts that have nothing to do with each other, each as `encode_array` does."""
        return [self.encode_array(text) for text in texts]

    def encode_documents(self, pieces: Iterable[tuple[str, bool]]) -> Iterator[NDArray[np.uint32]]:
        """Encodes documents, each with the end-of-text token after it.

        Args:
            pieces: text, and whether a document ends with it.

        Raises:
            TokenizerError: the text contains something that the vocabulary cannot encode.
        """
        return map(self.encode_job, self.document_jobs(pieces))

    def document_jobs(self, pieces: Iterable[tuple[str, bool]]) -> Iterator[Job]:
        """The work of encoding documents: short ones together, a long one in several shares."""
        assert self.end_of_text is not None
        rest = iter(pieces)
        whole: list[str] = []
        size = 0
        for text, ends in rest:
            if ends:
                whole.append(text)
                size += len(text)
                if size < _TOGETHER and len(whole) < _MOST_TOGETHER:
                    continue
            if whole:
                yield Job(tuple(whole), ended=True)
            whole, size = [], 0
            if not ends:
                yield from self._long_jobs(text, rest)
        if whole:
            yield Job(tuple(whole), ended=True)

    def _long_jobs(self, first: str, rest: Iterator[tuple[str, bool]]) -> Iterator[Job]:
        """A document in several pieces; one that never ends gets no end-of-text token."""
        ended = False

        def to_its_end() -> Iterator[str]:
            nonlocal ended
            yield first
            for text, ended in rest:
                yield text
                if ended:
                    return

        yield from self.jobs(to_its_end())
        if ended:
            yield Job((), ended=True)

    def _add_end_of_text(self) -> None:
        """Gives the end-of-text token the id after all others."""
        self.end_of_text = len(self.token_bytes)
        self.end_ids = frozenset({self.end_of_text})
        self.token_bytes = [*self.token_bytes, b""]

    def _saved_end(self) -> dict[str, bool]:
        """What the JSON has for the end-of-text token; nothing where there is none."""
        return {"end_of_text": True} if self.end_of_text is not None else {}

    @property
    def start_ids(self) -> list[int]:
        """The ids to start from without a prompt.

        The end-of-text token, which every document of the training text follows; without one a line
        break, or else the first real token. A vocabulary of paragraphs may know line breaks only in
        pairs.
        """
        if self.end_of_text is not None:
            return [self.end_of_text]
        known = [i for i in range(self.vocab_size) if i != self.unknown_id] or [0]
        breaks = [i for i in known if self.token_bytes[i].strip(b"\r\n ") == b""]
        lines = [i for i in breaks if b"\n" in self.token_bytes[i]]
        return [min(lines, key=lambda i: (self.token_bytes[i] != b"\n", i), default=known[0])]


class StreamDecoder:
    """Decodes tokens one at a time, holding back incomplete characters.

    The pieces joined, including `flush` at the end, equal `Tokenizer.decode` of all ids.
    """

    def __init__(self, token_bytes: Sequence[bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The characters that this token completes, possibly none."""
        return self._decoder.decode(self._token_bytes[token])

    def flush(self) -> str:
        """What was held back: U+FFFD for an incomplete character."""
        return self._decoder.decode(b"", final=True)


def unknown_characters(
    text: str, unknown: Sequence[int], kind: str, known: Container[str], before: int = 0
) -> TokenizerError:
    """The error for characters that are not in a vocabulary.

    Args:
        text: the piece that was encoded.
        unknown: indices of the unknown characters in it.
        kind: the kind of tokenizer.
        known: the characters of the vocabulary.
        before: number of characters of the whole text before this piece.
    """
    seen = dict.fromkeys(text[index] for index in unknown)
    shown = ", ".join(f"{char!r} (U+{ord(char):04X})" for char in list(seen)[:5])
    more = _(" and {number} more").format(number=len(seen) - 5) if len(seen) > 5 else ""
    it = _("it") if len(seen) == 1 else _("them")
    return TokenizerError(
        _(
            "the {kind} tokenizer does not know {shown}{more}, first at character {place} "
            "of the text; "
        ).format(kind=kind, shown=shown, more=more, place=before + unknown[0] + 1)
        + _other_composition(text, unknown, known)
        + _("remove {it}, or use a byte or bpe tokenizer, which can encode every character").format(
            it=it
        ),
        ("data.tokenizer=bpe",),
    )


def _other_composition(text: str, unknown: Sequence[int], known: Container[str]) -> str:
    """Says so where the vocabulary has a character in parts, or the parts as one character."""
    for place in unknown:
        char = text[place]
        parts = unicodedata.normalize("NFD", char)
        if len(parts) > 1 and all(part in known for part in parts):
            points = " + ".join(f"U+{ord(part):04X}" for part in parts)
            return _("the training text has {char} as {points} (NFD); write it that way, ").format(
                char=char, points=points
            )
        whole = unicodedata.normalize("NFC", text[max(0, place - 1) : place + 1])
        if place and len(whole) == 1 and whole in known:
            return _(
                "the training text has {whole} as one character, U+{code:04X} (NFC); "
                "write it that way, "
            ).format(whole=whole, code=ord(whole))
    return ""
