"""`minigpt generate`: continue a prompt."""

import os
import sys
from contextlib import nullcontext
from functools import partial
from io import BufferedReader, FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minigpt_cli.cli.help import examples
from minigpt_cli.cli.loading import CheckpointPath, load
from minigpt_cli.cli.options import (
    TOP_K,
    TOP_P,
    Device,
    Precision,
    Quantize,
    Seed,
    decoded,
    in_choice,
    in_output,
    in_settings,
    usage_errors,
)
from minigpt_cli.cli.startup import import_torch
from minigpt_cli.cli.typed import model_and_prompt
from minigpt_cli.errors import ConfigError, reraise_as
from minigpt_cli.language import _

if TYPE_CHECKING:
    from minigpt_cli.cli.writing import Writer

EXAMPLE = examples(
    'minigpt generate "ROMEO:"',
    "minigpt generate --interactive",
    "minigpt generate --prompt-file prompts.txt --json",
)
in_prompt = partial(typer.Option, rich_help_panel="Prompt")
_MOST_BYTES = 1 << 26
"""Bytes of prompts that are read; a device such as /dev/zero never ends."""


def _moved(value: str | None) -> None:
    if value is not None:
        raise typer.BadParameter(_("use: minigpt inspect next TEXT"))


def _not_empty(texts: list[str] | None) -> list[str]:
    if "" in (texts or ()):
        raise typer.BadParameter(_("must not be empty"))
    return [decoded(text) or "" for text in texts or []]


Prompt = Annotated[
    str | None,
    in_prompt(
        "--prompt",
        "-p",
        help="Text to continue; - reads it from stdin.",
        show_default="empty",
        callback=decoded,
    ),
]
PromptFile = Annotated[
    Path | None, in_prompt("--prompt-file", help="A file with one prompt per line.")
]
Interactive = Annotated[bool, in_prompt("--interactive", "-i", help="Take turns with the model.")]
MaxNewTokens = Annotated[
    int, typer.Option("--max-new-tokens", "-n", min=1, help="Tokens to generate.")
]
NumSamples = Annotated[int, typer.Option("--num-samples", min=1, help="Texts per prompt.")]
Stop = Annotated[
    list[str] | None,
    typer.Option("--stop", help="Stop before this text; repeatable.", callback=_not_empty),
]
Temperature = Annotated[
    float,
    in_choice(
        "--temperature",
        "-t",
        min=0,
        help="0 always picks the most likely token; 1 samples from the model as is.",
    ),
]
MinP = Annotated[
    float | None,
    in_choice(
        "--min-p",
        min=0,
        max=1,
        help="Drop tokens below P times the most likely token's probability.",
    ),
]
RepetitionPenalty = Annotated[
    float,
    in_choice(
        "--repetition-penalty",
        min=0.01,
        max=100,
        help="Above 1, discourages tokens already in the text.",
    ),
]
ExactWindow = Annotated[
    bool,
    in_settings(
        "--exact-window", help="Past the context window, re-read it for every token (slow)."
    ),
]
ShowProbabilities = Annotated[
    bool, in_output("--show-probabilities", help="Color each token by its probability.")
]
Top = Annotated[str | None, typer.Option("--top", hidden=True, callback=_moved)]
Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="PROMPT", help="Text to continue, as with --prompt."),
]
TextsJson = Annotated[
    bool, in_output("--json", help="Print a JSON array; with --prompt-file, JSON lines.")
]


def generate(
    words: Words = None,
    prompt: Prompt = None,
    prompt_file: PromptFile = None,
    interactive: Interactive = False,
    checkpoint: CheckpointPath = None,
    max_new_tokens: MaxNewTokens = 500,
    num_samples: NumSamples = 1,
    stop: Stop = None,
    temperature: Temperature = 0.8,
    top_k: Annotated[int | None, TOP_K] = None,
    top_p: Annotated[float | None, TOP_P] = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = 1.0,
    seed: Seed = 0,
    exact_window: ExactWindow = False,
    precision: Precision = "auto",
    quantize: Quantize = None,
    device: Device = "cpu",
    show_probabilities: ShowProbabilities = False,
    as_json: TextsJson = False,
    top: Top = None,  # noqa: ARG001 - answered by its callback
) -> None:
    """Generate text: continue a prompt, token by token.

    Stdout contains only the text, so it can be piped. With --precision fp32, a text is the same
    whatever is generated beside it; in bf16, the rounding depends on how many there are.
    """
    _check_combinations(
        {
            "--prompt-file": prompt_file is not None,
            "--prompt": prompt is not None,
            "a prompt": bool(words),
            "--interactive": interactive,
            "--json": as_json,
            "--show-probabilities": show_probabilities,
            "--num-samples": num_samples > 1,
            "--quantize": quantize is not None,
            "--precision fp32": precision == "fp32",
        }
    )
    if words:
        checkpoint, prompt = model_and_prompt(words, checkpoint, prompt)
    import_torch()
    from minigpt_cli.cli.writing import Writer
    from minigpt_cli.generation.sampling import Sampling

    with usage_errors():
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    prompts = _prompts(prompt, prompt_file)
    _note_escapes([*([prompt] if prompt else []), *(stop or [])])
    writer = Writer(
        load(checkpoint, device, precision, quantize).checkpoint, sampling, max_new_tokens,
        num_samples=num_samples, stop=tuple(stop or ()), exact_window=exact_window,
        probabilities=show_probabilities,
    )  # fmt: skip
    if as_json:
        writer.print_json(prompts, as_lines=prompt_file is not None)
    else:
        (_take_turns if interactive else Writer.show)(writer, prompts)


def _take_turns(writer: "Writer", prompts: list[str]) -> None:
    from minigpt_cli.cli.interactive import write_together

    write_together(writer, prompts[0])


def _check_combinations(given: dict[str, bool]) -> None:
    """Refuses options that contradict each other."""
    for one, others in (
        ("--prompt-file", ["--prompt", "a prompt", "--interactive"]),
        ("--interactive", ["--json", "--show-probabilities", "--num-samples"]),
        ("--quantize", ["--precision fp32"]),
    ):
        for other in others:
            if given[one] and given[other]:
                raise typer.BadParameter(
                    _("{one} and {other} cannot be combined").format(one=one, other=other)
                )


def _opened(path: Path) -> BufferedReader:
    """Opens a file or a pipe; a FIFO that nobody writes to is empty, not waited for."""

    def opener(name: str, flags: int) -> int:
        descriptor = os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
        if hasattr(os, "O_NONBLOCK"):
            os.set_blocking(descriptor, True)
        return descriptor

    return BufferedReader(FileIO(path, opener=opener))


def _prompts(prompt: str | None, prompt_file: Path | None) -> list[str]:
    """What to continue: one text, or the lines of a file."""
    if prompt_file is None and prompt != "-":
        return [prompt or ""]
    name = str(prompt_file or "stdin")
    with (
        reraise_as(ConfigError, name, "read"),
        _opened(prompt_file) if prompt_file else nullcontext(sys.stdin.buffer) as file,
    ):
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ConfigError(
            _("{name}: more than {most_bytes:,} bytes of prompts; use a smaller file").format(
                name=name, most_bytes=_MOST_BYTES
            )
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            _("{name}: not UTF-8 at byte {start}; save it as UTF-8").format(
                name=name, start=error.start
            )
        ) from None
    text = text.replace("\r\n", "\n")
    if prompt_file is None:
        return [text]
    if not text:
        raise ConfigError(_("{name}: no prompts; write one on each line").format(name=name))
    return text.removesuffix("\n").split("\n")


def _note_escapes(texts: list[str]) -> None:
    r"""Says that \n in an argument is two characters, and how to type a line break."""
    from minigpt_cli.cli.console import print_note

    found = next((text for text in texts if "\\n" in text or "\\t" in text), None)
    if found is not None:
        print_note(
            _(
                '"{found}" has a backslash and a letter in it, not a line break or tab; for '
                "those type $'{found}' (bash, zsh)"
            ).format(found=found)
        )
