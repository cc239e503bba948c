"""The options of `minigpt train` that no other command has."""

import re
from pathlib import Path
from typing import Annotated

import typer

from minigpt_cli.cli.options import (
    in_cost,
    in_data,
    in_output,
    in_run,
    in_settings,
    whole_number,
)
from minigpt_cli.cli.texts import LEARNED
from minigpt_cli.language import _

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TEXT|PRESET|RUN",
        help="A text, as with --data; a preset; or with --resume a run (default: the newest).",
    ),
]
Resume = Annotated[bool, in_run("--resume", help="Continue a run that was stopped.")]
Continue = Annotated[
    bool,
    in_run(
        "--continue",
        help="Continue the run in --out if it is there, else start it: for a command that may be "
        "restarted.",
    ),
]
Processes = Annotated[
    int | None,
    in_run(
        "--processes",
        min=1,
        metavar="N",
        help="Train with N processes on this machine (torchrun starts them on several).",
        show_default="1",
    ),
]
Out = Annotated[
    Path | None,
    in_run("--out", "-o", help="The run folder.", show_default="runs/PRESET or runs/TEXT"),
]
Watch = Annotated[bool, in_run("--watch", help="Keep report.html in the run folder up to date.")]
DryRun = Annotated[
    bool, in_cost("--dry-run", help="Estimate time, memory and disk from three real steps.")
]
_BYTES = {"": 1, "B": 1} | {
    f"{prefix}{unit}": base**power
    for power, prefix in enumerate("kMGT", 1)
    for unit, base in (("B", 1000), ("iB", 1024), ("", 1024))
}


def memory_size(text: str) -> int:
    """Bytes in a size such as `8GiB`, `500MB` or `1.5G`.

    Raises:
        typer.BadParameter: the text is something else.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([A-Za-z]*)", text.strip(), re.ASCII)
    units = {unit.lower(): factor for unit, factor in _BYTES.items()}
    factor = units.get(found[2].lower()) if found and len(found[1]) < 20 else None
    size = 0 if found is None or factor is None else int(float(found[1]) * factor)
    if not size:
        raise typer.BadParameter(_("{text!r} is not a size, as in 8GiB or 500MB").format(text=text))
    return size


Gpus = Annotated[
    int | None,
    in_cost(
        "--gpus",
        min=1,
        max=1_000_000,
        metavar="N",
        help="With --dry-run: plan for N GPUs that need not be here, without training.",
    ),
]
Gpu = Annotated[
    str | None,
    in_cost(
        "--gpu",
        metavar="NAME",
        help="With --gpus: which, as in h100, h200, b200, a100, l40s, l4 or rtx4090.",
        show_default="h100",
    ),
]
Utilization = Annotated[
    float | None,
    in_cost(
        "--utilization",
        min=0.01,
        max=1.0,
        help="With --gpus: the share of the peak FLOP/s that training reaches.",
        show_default="0.4",
    ),
]
MaxMemory = Annotated[
    int | None,
    in_cost(
        "--max-memory",
        parser=memory_size,
        metavar="SIZE",
        help="Split batches into more passes, until a process should take at most this (8GiB).",
        show_default=False,
    ),
]
ListPresets = Annotated[bool, in_run("--list-presets", help="List the presets.")]
ListSettings = Annotated[
    bool,
    in_settings("--list-settings", help="List every setting for --set, with default and limits."),
]
Data = Annotated[
    list[str] | None,
    in_data(
        "--data",
        "-d",
        help="A known corpus, file or folder, or - for stdin; repeatable (NAME=WEIGHT).",
        show_default="shakespeare",
    ),
]
ValidationData = Annotated[
    list[str] | None,
    in_data(
        "--val-data",
        help="A text to validate on; may be repeated.",
        show_default="the last tenth of --data",
    ),
]
TokenizerOption = Annotated[
    str | None,
    in_data(
        "--tokenizer",
        metavar="KIND|PATH",
        help="Tokenizer: char, word, byte, bpe, or a tokenizer.json.",
        show_default="char",
        autocompletion=lambda incomplete: [k for k in LEARNED if k.startswith(incomplete)],
    ),
]


def _complete_setting(incomplete: str) -> list[str]:
    from minigpt_cli.config.listing import names_for_completion

    return names_for_completion(incomplete)


Settings = Annotated[
    list[str] | None,
    in_settings(
        "--set",
        help="Any setting, as section.key=value; may be repeated.",
        autocompletion=_complete_setting,
    ),
]
MaxIters = Annotated[
    int | None,
    in_settings("--max-iters", help="Optimizer steps.", parser=whole_number, metavar="N"),
]
BatchSize = Annotated[
    int | None,
    in_settings("--batch-size", help="Sequences per batch.", parser=whole_number, metavar="N"),
]
LearningRate = Annotated[
    float | None,
    in_settings(
        "--learning-rate",
        help="Peak learning rate (with Muon: of the weight matrices in the blocks).",
    ),
]
Log = Annotated[
    list[str] | None,
    in_run(
        "--log",
        metavar="TRACKER",
        help="Also track the run with tensorboard or wandb; may be repeated.",
    ),
]
InitFrom = Annotated[
    Path | None,
    in_run(
        "--init-from",
        metavar="MODEL",
        help="Begin from a model: a run, a checkpoint, or a Hugging Face folder.",
        show_default="new weights",
    ),
]
LoraRank = Annotated[
    int | None,
    in_settings(
        "--lora-rank",
        help="Train low-rank adapters (LoRA) of this rank; with --init-from.",
        parser=whole_number,
        metavar="N",
    ),
]
Freeze = Annotated[
    list[str] | None,
    in_settings(
        "--freeze",
        metavar="PATTERN",
        help="Weights to leave as they are, as in 'blocks.0.*'; may be repeated.",
    ),
]
ResultJson = Annotated[
    bool, in_output("--json", help="At the end, print the result as a JSON object.")
]
