"""Generated text on its way to stdout: as it is made, all at once, or as JSON."""

import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from rich.text import Text

from minigpt_cli.cli.console import err, out, print_json, print_json_lines, print_note, printable
from minigpt_cli.cli.render import SURPRISE_STYLES, legend
from minigpt_cli.device import LESS_MEMORY, reraise_out_of_memory
from minigpt_cli.generation.sampling import Sampling
from minigpt_cli.generation.text import Piece, generate_texts, prompt_ids
from minigpt_cli.generation.tokens import GenerationRequest
from minigpt_cli.language import _, mark
from minigpt_cli.runs.checkpoint import Checkpoint
from minigpt_cli.tokenizer.base import StreamDecoder

TEXTS_TOGETHER = 64
SEPARATOR = "\n---\n"
# From likely to unlikely: the first whose probability the token reaches.
SHADES = tuple(zip((0.5, 0.2, 0.05, 0.0), (SURPRISE_STYLES[i] for i in (0, 2, 3, 4)), strict=True))
SHADE_NAMES = (mark("50% or more"), mark("20 to 50%"), mark("5 to 20%"), mark("under 5%"))
YOURS = "bold"
"""The style of the user's own words in a session."""


@dataclass
class Writer:
    """Generates texts and shows them."""

    checkpoint: Checkpoint
    sampling: Sampling
    max_new_tokens: int
    num_samples: int = 1
    stop: tuple[str, ...] = ()
    exact_window: bool = False
    probabilities: bool = False
    """Whether to show the probability of each token."""

    def ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """The tokens of each prompt."""
        return [prompt_ids(self.checkpoint.tokenizer, prompt) for prompt in prompts]

    def pieces(self, prompts: Sequence[str]) -> Iterator[list[Piece]]:
        """Pieces of all samples of all prompts, in parallel."""
        ids, count = self.ids(prompts), self.num_samples
        request = GenerationRequest(
            ids, self.max_new_tokens, self.sampling, count, self.exact_window
        )
        return generate_texts(self.checkpoint, request, self.stop, self.probabilities)

    def note_prompts(self, prompts: Sequence[str]) -> None:
        """Notes prompts that are longer than the window, or have words outside the vocabulary."""
        window = self.checkpoint.metadata.model.block_size
        unknown = self.checkpoint.tokenizer.unknown_id
        for number, (prompt, ids) in enumerate(zip(prompts, self.ids(prompts), strict=True), 1):
            if not prompt:
                continue
            which = (
                _("The prompt") if len(prompts) == 1 else _("Prompt {number}").format(number=number)
            )
            if len(ids) > window:
                print_note(
                    _("{which} has {number:,} tokens; the model reads the last {window:,}.").format(
                        which=which, number=len(ids), window=window
                    )
                )
            if unknown is not None and unknown in ids:
                print_note(
                    _(
                        "{which} has {count:,} words that are not in the model's vocabulary "
                        "(<unk>)."
                    ).format(which=which, count=ids.count(unknown))
                )

    def stream(self, prompt: str, shown: str | None = None) -> Generator[str]:
        """Shows a text while it is generated, and yields it piece by piece.

        Args:
            prompt: what to continue.
            shown: the end of the prompt that is not on the screen yet; by default all of it.

        Raises:
            TokenizerError: a character of the prompt is not in the vocabulary; nothing was shown.
        """
        style = "" if shown is None else YOURS
        return _shown_pieces(prompt if shown is None else shown, self.pieces([prompt]), style)

    def show(self, prompts: Sequence[str]) -> None:
        """Shows one text while it is generated, or several when all are finished."""
        self.note_prompts(prompts)
        self.explain_colors()
        if len(prompts) * self.num_samples == 1:
            for _piece in self.stream(prompts[0]):
                pass
            return
        for i, pieces in enumerate(self._texts(prompts)):
            _show((SEPARATOR if i else "") + prompts[i // self.num_samples])
            for piece in pieces:
                _show(piece.text, _shade(piece))
        _show("\n")

    def explain_colors(self) -> None:
        """Shows what the colors of tokens mean, or says why there are none."""
        if not self.probabilities:
            return
        if out.is_terminal and out.color_system and not out.no_color:
            shades = [style for _least, style in SHADES]
            names = [_(name) for name in SHADE_NAMES]
            err.print(Text(_("probability of each token: ")) + legend(names, shades))
        else:
            print_note(
                _(
                    "Probabilities are shown as colors, and this output has none; --json "
                    "prints the numbers."
                )
            )

    def print_json(self, prompts: Sequence[str], as_lines: bool) -> None:
        """Prints every text with its prompt, as one list or as JSON lines."""
        self.note_prompts(prompts)
        texts = []
        for i, pieces in enumerate(self._texts(prompts)):
            text: dict[str, object] = {
                "prompt": prompts[i // self.num_samples],
                "text": "".join(piece.text for piece in pieces),
            }
            if self.probabilities:
                text["tokens"] = list(self._tokens(pieces))
            texts.append(text)
        (print_json_lines if as_lines else print_json)(texts)

    def _tokens(self, pieces: Sequence[Piece]) -> Iterator[dict[str, object]]:
        """The tokens of a text, up to where it ends: a stop text may cut the last one short."""
        tokenizer, length = self.checkpoint.tokenizer, sum(len(piece.text) for piece in pieces)
        decoder, end = StreamDecoder(tokenizer.token_bytes), 0
        for piece in pieces:
            if piece.token is None or end >= length:
                continue
            shown = tokenizer.decode([piece.token])
            if (end := end + len(decoder.push(piece.token))) > length:
                shown = shown[: length - end]
            yield {"text": shown, "probability": piece.probability}

    def _texts(self, prompts: Sequence[str]) -> Iterator[tuple[Piece, ...]]:
        """The pieces of each text; many prompts are processed in groups.

        Call `note_prompts` first: it reads every prompt, so that a bad one is refused before any
        text is generated.
        """
        together = max(1, TEXTS_TOGETHER // self.num_samples)
        for i in range(0, len(prompts), together):
            with reraise_out_of_memory(_("ask for fewer --num-samples")):
                yield from zip(*self.pieces(prompts[i : i + together]), strict=True)


def _shown_pieces(prompt: str, pieces: Iterator[list[Piece]], style: str) -> Generator[str]:
    _show(prompt, style)
    try:
        with reraise_out_of_memory(LESS_MEMORY):
            for (piece,) in pieces:
                _show(piece.text, _shade(piece))
                yield piece.text
    finally:
        _show("\n")


def _shade(piece: Piece) -> str:
    """The color for how likely a token was."""
    probability = piece.probability
    return "" if probability is None else next(c for least, c in SHADES if probability >= least)


def _show(text: str, style: str = "") -> None:
    """Writes text unchanged to a pipe, but escaped to a terminal, which it must not control."""
    if sys.stdout.isatty():
        text = printable(text)
    if style and text and out.is_terminal:
        out.print(Text(text, style), end="", soft_wrap=True)
    else:
        sys.stdout.write(text)
    sys.stdout.flush()
