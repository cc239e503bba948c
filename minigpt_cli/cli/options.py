"""Options that several commands share, and how to set what an error advises to change."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from minigpt_cli.config import choices
from minigpt_cli.config.presets import preset_names
from minigpt_cli.errors import ConfigError

DEFAULT_PRESET = "small"
DEFAULT_DATA_DIR = Path("data")
DATA, RUN, SETTINGS, OUTPUT = "Text", "Run", "Settings", "Output"


def _complete_preset(incomplete: str) -> list[str]:
    return [name for name in [*preset_names(), "auto"] if name.startswith(incomplete)]


Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        "-p",
        help="Preset name, auto, or path to a TOML file.",
        show_default=DEFAULT_PRESET,
        autocompletion=_complete_preset,
        rich_help_panel=RUN,
    ),
]
DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir",
        envvar="MINIGPT_DATA",
        help="Folder for downloaded and prepared texts.",
        readable=False,  # the core reports what cannot be read, in one way for all files
        rich_help_panel=DATA,
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        help="Encoding of your files: utf-8, gb18030, cp1252, utf-16 ...",
        show_default="utf-8",
        rich_help_panel=DATA,
    ),
]
_DEVICE = typer.Option(
    "--device",
    help="Device to compute on: auto, cpu, cuda, cuda:N or mps.",
    rich_help_panel=SETTINGS,
)
Device = Annotated[str, _DEVICE]
DeviceOverride = Annotated[str | None, _DEVICE]
"""For a command whose preset or checkpoint has a device of its own."""
_PRECISION = typer.Option(
    "--precision",
    help="Numeric precision: auto, fp32 or bf16.",
    rich_help_panel=SETTINGS,
)
Precision = Annotated[choices.Precision, _PRECISION]
PrecisionOverride = Annotated[choices.Precision | None, _PRECISION]
_SEED = typer.Option("--seed", min=0, help="Random seed.", rich_help_panel=SETTINGS)
Seed = Annotated[int, _SEED]
SeedOverride = Annotated[int | None, _SEED]
Quantize = Annotated[
    choices.Quantization | None,
    typer.Option(
        "--quantize",
        help="Quantize the weight matrices: int8 is faster for a single text on a CPU.",
        rich_help_panel=SETTINGS,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print JSON to stdout.", rich_help_panel=OUTPUT),
]

SETTING_OPTIONS: dict[str, tuple[str, ...]] = {
    "data.corpus": ("--data",),
    "data.encoding": ("--encoding",),
    "data.tokenizer": ("--tokenizer", "--kind"),
    "data.val_corpus": ("--val-data",),
    "data.val_fraction": ("--val-fraction",),
    "data.vocab_size": ("--vocab-size",),
    "data_dir": ("--data-dir",),
    "optimizer.learning_rate": ("--learning-rate",),
    "out": ("--out",),
    "train.batch_size": ("--batch-size",),
    "train.compile": ("--compile",),
    "train.device": ("--device",),
    "train.max_iters": ("--max-iters",),
    "train.precision": ("--precision",),
    "train.seed": ("--seed",),
}
"""The options that set a setting, by its full name; any other setting takes `--set`."""


def how_to_set(settings: tuple[str, ...], available: set[str]) -> str:
    """How to set some settings on the command line, to follow a message.

    Args:
        settings: each as `name` or `name=value`.
        available: the options of the command at hand.

    Returns:
        For example ` (set with --batch-size or --set model.block_size=64)`; empty where the
        command has no option for any of them.
    """
    ways = []
    for setting in settings:
        name, _, value = setting.partition("=")
        own = [option for option in SETTING_OPTIONS.get(name, ()) if option in available]
        if own:
            ways.append(f"{own[0]} {value}".rstrip())
        elif "--set" in available and "." in name:
            ways.append(f"--set {name}={value or 'VALUE'}")
    return f" (set with {' or '.join(ways)})" if ways else ""


def parse_settings(texts: list[str]) -> dict[str, object]:
    """The values given with `--set`, by the full name of their setting; the last one wins.

    Raises:
        typer.BadParameter: one is not `section.key=value`.
    """
    from minigpt_cli.config.loading import parse_override

    try:
        return dict(map(parse_override, texts))
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--set") from None


@contextmanager
def usage_errors() -> Iterator[None]:
    """Reports settings that are out of range as usage errors, with exit code 2.

    Raises:
        typer.BadParameter: a setting inside was refused.
    """
    try:
        yield
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
