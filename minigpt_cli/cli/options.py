"""Options that several commands share, and how to set what an error advises to change."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from minigpt_cli.config import choices
from minigpt_cli.config.presets import preset_names
from minigpt_cli.errors import ConfigError
from minigpt_cli.language import _

DEFAULT_PRESET = "small"
DEFAULT_DATA_DIR = Path("data")
in_data, in_run, in_cost, in_choice, in_settings, in_output = (
    partial(typer.Option, rich_help_panel=panel)
    for panel in ("Text", "Run", "Cost", "Choice of the next token", "Settings", "Output")
)
"""`typer.Option` in one of the panels of `--help`."""


def _complete_preset(incomplete: str) -> list[str]:
    return [name for name in [*preset_names(), "auto"] if name.startswith(incomplete)]


def decoded(text: str | None) -> str | None:
    """Refuses a typed text that is not in the terminal's encoding, as files and stdin are.

    Raises:
        typer.BadParameter: Python could not decode some bytes of it.
    """
    if text and any("\ud800" <= character <= "\udfff" for character in text):
        raise typer.BadParameter(
            _("not {encoding}; convert the text").format(encoding=sys.getfilesystemencoding())
        )
    return text


Preset = Annotated[
    str | None,
    in_run(
        "--preset",
        "-p",
        help="Preset name, auto, or path to a TOML file.",
        show_default=DEFAULT_PRESET,
        autocompletion=_complete_preset,
    ),
]
DataDir = Annotated[
    Path,
    in_data(
        "--data-dir",
        envvar="MINIGPT_DATA",
        help="Folder for downloaded and prepared texts.",
        readable=False,  # the core reports what cannot be read, in one way for all files
    ),
]
Verify = Annotated[
    bool, in_data("--verify", help="Re-read the text and its tokens even if no file has changed.")
]
Encoding = Annotated[
    str | None,
    in_data(
        "--encoding",
        help="Encoding of your files: auto, utf-8, gb18030, cp1252, utf-16 ...",
        show_default="utf-8",
    ),
]
_DEVICE = in_settings("--device", help="Device to compute on: auto, cpu, cuda, cuda:N or mps.")
Device = Annotated[str, _DEVICE]
DeviceOverride = Annotated[str | None, _DEVICE]
"""For a command whose preset names a device already."""
_PRECISION = in_settings("--precision", help="Numeric precision: auto, fp32 or bf16.")
Precision = Annotated[choices.Precision, _PRECISION]
PrecisionOverride = Annotated[choices.Precision | None, _PRECISION]
_SEED = in_settings("--seed", min=0, help="Random seed.")
Seed = Annotated[int, _SEED]
SeedOverride = Annotated[int | None, _SEED]
TOP_K = in_choice("--top-k", min=1, help="Only the K most likely tokens.")
TOP_P = in_choice(
    "--top-p",
    min=0,
    max=1,
    help="Nucleus sampling: the smallest set of tokens whose probabilities sum to P.",
)
Quantize = Annotated[
    choices.Quantization | None,
    in_settings(
        "--quantize",
        help="Quantize the weight matrices: int8 is faster for a single text on a CPU.",
    ),
]
Text = Annotated[
    str, typer.Argument(metavar="TEXT", help="What the model reads.", callback=decoded)
]
Plot = Annotated[Path | None, in_output("--plot", help="Save a picture, as .png or .svg.")]
Html = Annotated[Path | None, in_output("--html", help="Save an HTML page.")]
Force = Annotated[bool, in_output("--force", help="Overwrite existing files.")]
Json = Annotated[bool, in_output("--json", help="Print JSON to stdout.")]

SETTING_OPTIONS: dict[str, tuple[str, ...]] = {
    "data.corpus": ("--data",),
    "data.encoding": ("--encoding",),
    "data.include": ("--include",),
    "data.text_field": ("--text-field",),
    "data.tokenizer": ("--tokenizer", "--kind"),
    "data.val_corpus": ("--val-data",),
    "data.val_fraction": ("--val-fraction",),
    "data.vocab_size": ("--vocab-size",),
    "data_dir": ("--data-dir",),
    "lora.rank": ("--lora-rank",),
    "optimizer.learning_rate": ("--learning-rate",),
    "out": ("--out",),
    "train.batch_size": ("--batch-size",),
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
        available: the options of the command that ran.

    Returns:
        For example ` (set with --batch-size or --set model.block_size=64)`; empty where the
        command has no option for any of them.
    """
    ways = []
    for setting in settings:
        name, _equals, value = setting.partition("=")
        own = [option for option in SETTING_OPTIONS.get(name, ()) if option in available]
        if own:
            ways.append(f"{own[0]} {value}".rstrip())
        elif "--set" in available and "." in name:
            ways.append(f"--set {name}={value or 'VALUE'}")
    return _(" (set with {ways})").format(ways=_(" or ").join(ways)) if ways else ""


def parse_settings(texts: list[str]) -> dict[str, object]:
    """The values given with `--set`, by the full name of their setting; the last one wins."""
    from minigpt_cli.config.loading import parse_override

    try:
        found = [parse_override(text) for text in texts]
    except ConfigError as error:
        raise typer.BadParameter(_respelled(texts) or str(error), param_hint="--set") from None
    for text, (name, _value) in zip(texts, found, strict=True):
        if not text.lstrip().startswith(name):
            from minigpt_cli.cli.console import print_note

            print_note(_("--set {text}: taken as {name}").format(text=text, name=name))
    return dict(found)


def _respelled(texts: list[str]) -> str:
    """What to say of the first setting that has another name here; nothing without one."""
    from minigpt_cli.cli.spelling import assigned, did_you_mean_option, of_train

    for text in texts:
        pair = assigned(text)
        if pair and "." not in text.partition("=")[0] and (spelling := of_train(*pair)):
            return _("unknown setting {key}").format(key=pair[0]) + did_you_mean_option(spelling)
    return ""


def whole_number(text: str) -> int:
    """A whole number, which may be written 1e3 or 1_000.

    Raises:
        typer.BadParameter: the text is something else.
    """
    try:
        return int(text)
    except ValueError:
        with suppress(ValueError):
            if (number := float(text)).is_integer() and "e" in text.lower():
                return int(number)
    raise typer.BadParameter(_("{text!r} is not a whole number").format(text=text))


@contextmanager
def usage_errors() -> Iterator[None]:
    """Reports settings that are out of range as usage errors, with exit code 2."""
    try:
        yield
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
