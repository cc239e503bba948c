"""The options of `minigpt train` that no other command has."""

from pathlib import Path
from typing import Annotated

import typer

from minigpt_cli.cli.options import DATA, RUN, SETTINGS
from minigpt_cli.config.choices import TokenizerKind

Run = Annotated[
    Path | None,
    typer.Argument(readable=False, help="With --resume: the run's folder. Default: the newest."),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue a run that was stopped.", rich_help_panel=RUN)
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", help="The run folder.", show_default="runs/PRESET", rich_help_panel=RUN
    ),
]
Watch = Annotated[
    bool,
    typer.Option(
        "--watch", help="Keep report.html in the run folder up to date.", rich_help_panel=RUN
    ),
]
Log = Annotated[
    list[str] | None,
    typer.Option(
        "--log",
        metavar="TRACKER",
        help="Also track the run with tensorboard or wandb; may be repeated.",
        rich_help_panel=RUN,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Estimate time, memory and disk from three real steps.",
        rich_help_panel=RUN,
    ),
]
ListPresets = Annotated[
    bool, typer.Option("--list-presets", help="List the presets.", rich_help_panel=RUN)
]
InitFrom = Annotated[
    Path | None,
    typer.Option(
        "--init-from",
        metavar="RUN|FILE|FOLDER",
        help="Begin from a model: a run, a checkpoint, or a Hugging Face folder.",
        show_default="new weights",
        rich_help_panel=RUN,
    ),
]
Freeze = Annotated[
    list[str] | None,
    typer.Option(
        "--freeze",
        metavar="PATTERN",
        help="Weights to leave as they are, as in 'blocks.0.*'; may be repeated.",
        rich_help_panel=SETTINGS,
    ),
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        "-d",
        help="A known corpus, a file or a folder; may be repeated.",
        show_default="shakespeare",
        rich_help_panel=DATA,
    ),
]
TokenizerOption = Annotated[
    TokenizerKind | None,
    typer.Option(
        "--tokenizer",
        help="Tokenizer: char, word, byte or bpe.",
        show_default="char",
        rich_help_panel=DATA,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Any setting, as section.key=value; may be repeated.",
        rich_help_panel=SETTINGS,
    ),
]
MaxIters = Annotated[
    int | None, typer.Option("--max-iters", help="Optimizer steps.", rich_help_panel=SETTINGS)
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", help="Sequences per batch.", rich_help_panel=SETTINGS)
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        "--learning-rate",
        help="Peak learning rate (with Muon: of the weight matrices in the blocks).",
        rich_help_panel=SETTINGS,
    ),
]
Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Compile the model first; worthwhile for long runs.",
        show_default="only on a GPU",
        rich_help_panel=SETTINGS,
    ),
]
