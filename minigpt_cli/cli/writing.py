"""What the ways of writing have in common: a model, how it chooses, and where the text goes."""

import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from minigpt_cli.cli.console import out, print_json, print_json_lines, print_note, printable
from minigpt_cli.config.choices import Precision, Quantization
from minigpt_cli.device import LESS_MEMORY, pick_device, pick_dtype, reraise_out_of_memory
from minigpt_cli.generation.sampling import Sampling
from minigpt_cli.generation.text import Piece, generate_texts, prompt_ids
from minigpt_cli.generation.tokens import GenerationRequest
from minigpt_cli.model.quantization import quantize_int8
from minigpt_cli.runs.checkpoint import Checkpoint, load_checkpoint
from minigpt_cli.runs.folder import find_checkpoint

TEXTS_TOGETHER = 64
SEPARATOR = "\n---\n"
# From likely to unlikely: the first whose share the token reaches.
SHADES = ((0.5, "green"), (0.2, "yellow"), (0.05, "dark_orange"), (0.0, "red"))


def load_model(
    checkpoint: Path | None, device: str, precision: Precision, quantize: Quantization | None
) -> Checkpoint:
    """Loads a checkpoint for writing; says which, where the user did not.

    Raises:
        CheckpointError: there is none, or it is damaged.
        ConfigError: the device is not on this machine, or cannot quantize.
    """
    path, chosen = find_checkpoint(checkpoint)
    if chosen:
        print_note(f"Using {path}")
    loaded = load_checkpoint(path, pick_device(device))
    if quantize == "int8":
        quantize_int8(loaded.model)
    else:
        loaded.model.compute_dtype = pick_dtype(precision, loaded.model.head.weight.device)
    return loaded


@dataclass
class Writer:
    """Writes texts and shows them."""

    loaded: Checkpoint
    sampling: Sampling
    max_new_tokens: int
    num_samples: int = 1
    stop: tuple[str, ...] = ()
    exact_window: bool = False
    probabilities: bool = False
    """Whether to show how likely the model found each token."""

    def ids(self, prompts: Sequence[str]) -> list[list[int]]:
        return [prompt_ids(self.loaded.tokenizer, prompt) for prompt in prompts]

    def pieces(self, prompts: Sequence[str]) -> Iterator[list[Piece]]:
        """Pieces of all samples of all prompts, side by side.

        Raises:
            TokenizerError: a prompt holds characters the model never saw.
            ConfigError: a stop text is empty.
        """
        request = GenerationRequest(
            self.ids(prompts),
            self.max_new_tokens,
            self.sampling,
            self.num_samples,
            self.exact_window,
        )
        return generate_texts(self.loaded, request, self.stop, self.probabilities)

    def note_prompts(self, prompts: Sequence[str]) -> None:
        """Says which prompts the model cannot read whole: too long, or of words it never saw."""
        window, unknown = self.loaded.metadata.model.block_size, self.loaded.tokenizer.unknown_id
        for number, ids in enumerate(self.ids(prompts), start=1):
            which = "The prompt" if len(prompts) == 1 else f"Prompt {number}"
            if len(ids) > window:
                print_note(f"{which} has {len(ids):,} tokens; the model reads the last {window:,}.")
            if unknown is not None and unknown in ids:
                print_note(f"{which} has {ids.count(unknown):,} words that the model never saw.")

    def stream(self, prompt: str, shown: str | None = None) -> Generator[str]:
        """Shows a text as it is made, and yields it piece by piece.

        Args:
            prompt: what it goes on from.
            shown: the end of the prompt that is not on the screen yet; all of it unless given.

        Raises:
            TokenizerError: the prompt holds characters the model never saw; nothing was shown.
        """
        return _shown_pieces(prompt if shown is None else shown, self.pieces([prompt]))

    def show(self, prompts: Sequence[str]) -> None:
        """Shows one text as it is made, or several when all are done."""
        self.note_prompts(prompts)
        if len(prompts) * self.num_samples == 1:
            for _ in self.stream(prompts[0]):
                pass
            return
        for i, pieces in enumerate(self._texts(prompts)):
            _show((SEPARATOR if i else "") + prompts[i // self.num_samples])
            for piece in pieces:
                _show(piece.text, _shade(piece))
        _show("\n")

    def print_json(self, prompts: Sequence[str], one_a_line: bool) -> None:
        """Prints every text with its prompt, as one list or as JSON lines."""
        self.note_prompts(prompts)
        facts = []
        for i, pieces in enumerate(self._texts(prompts)):
            fact: dict[str, object] = {
                "prompt": prompts[i // self.num_samples],
                "text": "".join(piece.text for piece in pieces),
            }
            if self.probabilities:
                fact["tokens"] = [
                    {"text": self.loaded.tokenizer.decode([p.token]), "probability": p.probability}
                    for p in pieces
                    if p.token is not None
                ]
            facts.append(fact)
        (print_json_lines if one_a_line else print_json)(facts)

    def _texts(self, prompts: Sequence[str]) -> Iterator[tuple[Piece, ...]]:
        """The pieces of each text; many prompts are written a part at a time.

        Call `note_prompts` first: it reads every prompt, so that one which cannot be read is
        refused before any is written.

        Raises:
            OutOfMemoryError: not even the samples of one prompt fit.
        """
        together = max(1, TEXTS_TOGETHER // self.num_samples)
        for i in range(0, len(prompts), together):
            with reraise_out_of_memory("ask for fewer --num-samples"):
                yield from zip(*self.pieces(prompts[i : i + together]), strict=True)


def _shown_pieces(prompt: str, pieces: Iterator[list[Piece]]) -> Generator[str]:
    _show(prompt)
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


def _show(text: str, color: str = "") -> None:
    """Writes text as it is to a pipe; a terminal must not be driven by it."""
    if sys.stdout.isatty():
        text = printable(text)
    if color and out.is_terminal:
        out.print(Text(text, color), end="", soft_wrap=True)
    else:
        sys.stdout.write(text)
    sys.stdout.flush()
