"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from minigpt_cli.config.choices import Quantization
from minigpt_cli.config.presets import preset_names

SETTING_OPTIONS: dict[str, tuple[str, ...]] = {
    "data.corpus": ("--data",),
    "data.encoding": ("--encoding",),
    "data.tokenizer": ("--tokenizer", "--kind"),
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


DEFAULT_PRESET = "small"
DATA, RUN, SETTINGS, OUTPUT = "Text", "Run", "Settings", "Output"


def _complete_preset(incomplete: str) -> list[str]:
    return [name for name in preset_names() if name.startswith(incomplete)]


Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        "-p",
        help="A preset's name, or the path of a TOML file.",
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
        help="Where fetched and prepared texts are kept.",
        rich_help_panel=DATA,
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        help="Of your files: utf-8, gb18030, cp1252, utf-16 ...",
        rich_help_panel=DATA,
    ),
]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=SETTINGS)
]
Quantize = Annotated[
    Quantization | None,
    typer.Option(
        "--quantize",
        help="int8: matrices in 8 bits, quicker for one text.",
        rich_help_panel=SETTINGS,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print facts as JSON on stdout.", rich_help_panel=OUTPUT),
]

DEFAULT_DATA_DIR = Path("data")
