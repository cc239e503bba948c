"""`minigpt generate`: write with a model."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minigpt_cli.cli.options import Device, Json

if TYPE_CHECKING:
    from minigpt_cli.checkpoint import Checkpoint
    from minigpt_cli.generation import Sampling

EXAMPLE = (
    'Examples:  minigpt generate --prompt "ROMEO:"    '
    "minigpt generate --temperature 0.5 --top-k 20 --num-samples 3 > out.txt"
)
SEPARATOR = "\n---\n"


def generate(
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", help="What the text begins with; may be empty.")
    ] = "",
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", "-c", help="A checkpoint or a run's folder.",
                     show_default="the newest run"),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "-n", help="How much to write.", min=1)
    ] = 500,
    temperature: Annotated[
        float, typer.Option("--temperature", "-t", help="0 takes the likeliest; 1 as learned.")
    ] = 0.8,
    top_k: Annotated[
        int | None, typer.Option("--top-k", help="Draw from the k likeliest only.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option("--top-p", help="Draw from the likeliest with this share.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed writes the same text.")] = 0,
    num_samples: Annotated[
        int, typer.Option("--num-samples", help="How many texts.", min=1)
    ] = 1,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:  # fmt: skip
    """Write: continue a prompt, token by token.

    Stdout holds the text alone, so it can be piped.
    """
    from minigpt_cli.generation import Sampling

    sampling = Sampling(temperature, top_k, top_p, seed)

    from minigpt_cli.checkpoint import load_checkpoint
    from minigpt_cli.cli.console import print_note
    from minigpt_cli.device import pick_device
    from minigpt_cli.generation import prompt_ids
    from minigpt_cli.run_folder import find_checkpoint

    path, chosen = find_checkpoint(checkpoint)
    if chosen:
        print_note(f"Using {path}")
    loaded = load_checkpoint(path, pick_device(device))
    length = len(prompt_ids(loaded.tokenizer, prompt))
    window = loaded.facts.model.block_size
    if length > window:
        print_note(f"The prompt has {length:,} tokens; the model reads the last {window:,}.")
    if as_json or num_samples > 1:
        _write_whole(loaded, prompt, max_new_tokens, sampling, num_samples, as_json)
    else:
        _stream(loaded, prompt, max_new_tokens, sampling)


def _stream(loaded: "Checkpoint", prompt: str, max_new_tokens: int, sampling: "Sampling") -> None:
    """Shows characters as they are made."""
    from minigpt_cli.cli.console import printable
    from minigpt_cli.generation import generate as pieces

    # A pipe gets the text as it is; a terminal must not be driven by it.
    shown = printable if sys.stdout.isatty() else str
    sys.stdout.write(shown(prompt))
    for piece in pieces(loaded.model, loaded.tokenizer, prompt, max_new_tokens, sampling):
        sys.stdout.write(shown(piece))
        sys.stdout.flush()
    sys.stdout.write("\n")
    sys.stdout.flush()


def _write_whole(
    loaded: "Checkpoint",
    prompt: str,
    max_new_tokens: int,
    sampling: "Sampling",
    num_samples: int,
    as_json: bool,
) -> None:
    """Several texts side by side, each shown when all are done."""
    from minigpt_cli.cli.console import print_json, printable
    from minigpt_cli.generation import generate_tokens, prompt_ids

    ids = prompt_ids(loaded.tokenizer, prompt)
    steps = generate_tokens(loaded.model, ids, max_new_tokens, sampling, num_samples)
    samples = [loaded.tokenizer.decode(tokens) for tokens in zip(*steps, strict=True)]
    if as_json:
        print_json([{"prompt": prompt, "text": text} for text in samples])
        return
    text = SEPARATOR.join(prompt + sample for sample in samples) + "\n"
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()
