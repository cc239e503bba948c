"""`minigpt generate`: write with a model."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minigpt_cli.cli.options import OUTPUT, SETTINGS, Device, Json, Precision, Quantize, Seed
from minigpt_cli.errors import ConfigError

if TYPE_CHECKING:
    from minigpt_cli.cli.writing import Writer

EXAMPLE = (
    'Examples:  minigpt generate --prompt "ROMEO:"    minigpt generate --interactive    '
    'minigpt generate --prompt "ROMEO:" --top 5'
)
CHOICE = "Choice of the next token"
PROMPT = "Prompt"


Prompt = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        "-p",
        help="What the text begins with; - reads it from stdin.",
        show_default="empty",
        rich_help_panel=PROMPT,
    ),
]
PromptFile = Annotated[
    Path | None,
    typer.Option("--prompt-file", help="A file with one prompt a line.", rich_help_panel=PROMPT),
]
Interactive = Annotated[
    bool,
    typer.Option(
        "--interactive", "-i", help="Write together, turn by turn.", rich_help_panel=PROMPT
    ),
]
CheckpointPath = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        "-c",
        help="A checkpoint or a run's folder.",
        show_default="the newest run",
    ),
]
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", "-n", help="How much to write.")]
NumSamples = Annotated[int, typer.Option("--num-samples", help="How many texts for each prompt.")]
Stop = Annotated[
    list[str] | None, typer.Option("--stop", help="End before this text; may be repeated.")
]
Temperature = Annotated[
    float,
    typer.Option(
        "--temperature",
        "-t",
        help="0 takes the likeliest; 1 as learned.",
        rich_help_panel=CHOICE,
    ),
]
TopK = Annotated[
    int | None, typer.Option("--top-k", help="Only the k likeliest.", rich_help_panel=CHOICE)
]
TopP = Annotated[
    float | None,
    typer.Option(
        "--top-p",
        help="Only the likeliest that have this share together.",
        rich_help_panel=CHOICE,
    ),
]
MinP = Annotated[
    float | None,
    typer.Option(
        "--min-p",
        help="Only those with this share of the likeliest's probability.",
        rich_help_panel=CHOICE,
    ),
]
RepetitionPenalty = Annotated[
    float,
    typer.Option(
        "--repetition-penalty",
        help="Above 1, rather what was not there yet.",
        rich_help_panel=CHOICE,
    ),
]
ExactWindow = Annotated[
    bool,
    typer.Option(
        "--exact-window",
        help="Past the window read all of it again for each token: slow.",
        rich_help_panel=SETTINGS,
    ),
]
Top = Annotated[
    int | None,
    typer.Option("--top", help="Only show the N likeliest next tokens.", rich_help_panel=OUTPUT),
]
ShowProbabilities = Annotated[
    bool,
    typer.Option(
        "--show-probabilities",
        help="Color each token by how likely the model found it.",
        rich_help_panel=OUTPUT,
    ),
]


def generate(
    prompt: Prompt = None,
    prompt_file: PromptFile = None,
    interactive: Interactive = False,
    checkpoint: CheckpointPath = None,
    max_new_tokens: MaxNewTokens = 500,
    num_samples: NumSamples = 1,
    stop: Stop = None,
    temperature: Temperature = 0.8,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = 1.0,
    seed: Seed = 0,
    exact_window: ExactWindow = False,
    precision: Precision = "auto",
    quantize: Quantize = None,
    device: Device = "cpu",
    top: Top = None,
    show_probabilities: ShowProbabilities = False,
    as_json: Json = False,
) -> None:
    """Write: continue a prompt, token by token.

    Stdout holds the text alone, so it can be piped.
    """
    _refuse_what_excludes(
        {
            "--prompt-file": prompt_file is not None,
            "--prompt": prompt is not None,
            "--interactive": interactive,
            "--top": top is not None,
            "--json": as_json,
            "--show-probabilities": show_probabilities,
            "--num-samples": num_samples > 1,
            "--quantize": quantize is not None,
            "--precision fp32": precision == "fp32",
        }
    )
    _refuse_none_at_all(
        {"--max-new-tokens": max_new_tokens, "--num-samples": num_samples, "--top": top}
    )
    from minigpt_cli.generation.sampling import Sampling

    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    prompts = _prompts(prompt, prompt_file)

    from minigpt_cli.cli.writing import Writer, load_model

    loaded = load_model(checkpoint, device, precision, quantize)
    writer = Writer(
        loaded,
        sampling,
        max_new_tokens,
        num_samples,
        tuple(stop or ()),
        exact_window,
        show_probabilities,
    )
    _write(writer, prompts, interactive, top, as_json, one_a_line=prompt_file is not None)


def _write(
    writer: "Writer",
    prompts: list[str],
    interactive: bool,
    top: int | None,
    as_json: bool,
    one_a_line: bool,
) -> None:
    """In one of the ways to use the writer."""
    if interactive:
        from minigpt_cli.cli.interactive import write_together

        write_together(writer, prompts[0])
    elif top is not None:
        from minigpt_cli.cli.likeliest import show_likeliest

        show_likeliest(writer, prompts, top, as_json)
    elif as_json:
        writer.print_json(prompts, one_a_line)
    else:
        writer.show(prompts)


def _refuse_none_at_all(counts: dict[str, int | None]) -> None:
    for name, number in counts.items():
        if number is not None and number < 1:
            raise ConfigError(f"{name} {number}: must be 1 or more")


def _refuse_what_excludes(given: dict[str, bool]) -> None:
    """Options that contradict each other.

    Raises:
        ConfigError: two of them were given.
    """
    for one, others in (
        ("--prompt-file", ["--prompt", "--interactive"]),
        ("--interactive", ["--top", "--json", "--show-probabilities", "--num-samples"]),
        ("--top", ["--show-probabilities", "--num-samples"]),
        ("--quantize", ["--precision fp32"]),
    ):
        for other in others:
            if given[one] and given[other]:
                raise ConfigError(f"{one} and {other} exclude each other; leave one out")


def _prompts(prompt: str | None, prompt_file: Path | None) -> list[str]:
    """What to continue: one text, or the lines of a file.

    Raises:
        ConfigError: a file or stdin cannot be read, or is not UTF-8.
    """
    if prompt_file is None and prompt != "-":
        return [prompt or ""]
    name = str(prompt_file) if prompt_file else "stdin"
    try:
        data = prompt_file.read_bytes() if prompt_file else sys.stdin.buffer.read()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    if prompt_file is None:
        return [text]
    if not text:
        raise ConfigError(f"{name}: holds no prompt; write one on each line")
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n")
