"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from minigpt_cli.config.choices import Quantization
from minigpt_cli.config.presets import preset_names

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
        readable=False,  # the core reports what cannot be read, in one way for all files
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
