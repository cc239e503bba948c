"""`minigpt train`: train a model on a text."""

import _thread
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from minigpt_cli.cli.boundary import ENDING
from minigpt_cli.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_PRESET,
    DataDir,
    DeviceOverride,
    Encoding,
    Json,
    PrecisionOverride,
    Preset,
    SeedOverride,
    in_data,
    in_run,
    in_settings,
    parse_settings,
)
from minigpt_cli.config.choices import TokenizerKind
from minigpt_cli.config.presets import preset_names, shipped_folder

if TYPE_CHECKING:
    from minigpt_cli.config.loading import Overrides
    from minigpt_cli.training.reporter import Reporter, TrainResult
    from minigpt_cli.training.trainer import Trainer

EXAMPLE = (
    "Examples:  minigpt train --preset small    "
    "minigpt train --data book.txt --max-iters 2000    minigpt train --resume"
)


Run = Annotated[
    Path | None,
    typer.Argument(readable=False, help="With --resume: the run's folder. Default: the newest."),
]
Resume = Annotated[bool, in_run("--resume", help="Continue a run that was stopped.")]
Out = Annotated[
    Path | None,
    in_run("--out", "-o", help="The run folder.", show_default="runs/PRESET or runs/TEXT"),
]
Watch = Annotated[bool, in_run("--watch", help="Keep report.html in the run folder up to date.")]
DryRun = Annotated[
    bool, in_run("--dry-run", help="Estimate time, memory and disk from three real steps.")
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
        help="A known corpus, a file or a folder; may be repeated.",
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
    TokenizerKind | None,
    in_data("--tokenizer", help="Tokenizer: char, word, byte or bpe.", show_default="char"),
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
MaxIters = Annotated[int | None, in_settings("--max-iters", help="Optimizer steps.")]
BatchSize = Annotated[int | None, in_settings("--batch-size", help="Sequences per batch.")]
LearningRate = Annotated[
    float | None,
    in_settings(
        "--learning-rate",
        help="Peak learning rate (with Muon: of the weight matrices in the blocks).",
    ),
]


def train(
    run: Run = None,
    preset: Preset = None,
    resume: Resume = False,
    out: Out = None,
    watch: Watch = False,
    dry_run: DryRun = False,
    list_presets: ListPresets = False,
    list_settings: ListSettings = False,
    data: Data = None,
    val_data: ValidationData = None,
    tokenizer: TokenizerOption = None,
    encoding: Encoding = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    settings: Settings = None,
    max_iters: MaxIters = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    precision: PrecisionOverride = None,
    device: DeviceOverride = None,
    seed: SeedOverride = None,
    as_json: Json = False,
) -> None:
    """Train a model on a text, from scratch.

    Watch the loss fall and the samples improve; Ctrl-C saves and stops.
    """
    if list_presets:
        _list_presets(as_json)
        return
    if list_settings:
        _list_settings(as_json)
        return
    named = {
        "data.corpus": data,
        "data.val_corpus": val_data,
        "data.tokenizer": tokenizer,
        "data.encoding": encoding,
        "train.max_iters": max_iters,
        "train.batch_size": batch_size,
        "optimizer.learning_rate": learning_rate,
        "train.precision": precision,
        "train.device": device,
        "train.seed": seed,
    }
    overrides = parse_settings(settings or [])
    overrides |= {name: value for name, value in named.items() if value is not None}
    if run is not None and not resume:
        raise typer.BadParameter(f"RUN is only valid with --resume: --resume {run}")
    if resume and (preset is not None or dry_run):
        raise typer.BadParameter("--resume cannot be combined with --preset or --dry-run")
    if run is not None and out is not None:
        raise typer.BadParameter("RUN and --out cannot be combined")
    if resume:
        _resume(run or out, overrides, data_dir, watch, as_json)
    elif dry_run:
        _estimate(preset or DEFAULT_PRESET, overrides, data_dir, out, as_json)
    else:
        _start(preset or DEFAULT_PRESET, overrides, data_dir, out, watch, as_json)


def _start(
    preset: str,
    overrides: "Overrides",
    data_dir: Path,
    out: Path | None,
    watch: bool,
    as_json: bool,
) -> None:
    from minigpt_cli.cli.console import print_note
    from minigpt_cli.cli.render import file_progress
    from minigpt_cli.data.workspace import Workspace
    from minigpt_cli.training.setup import TrainRequest, start

    with ExitStack() as held:
        with file_progress() as progress:
            workspace = Workspace(data_dir, progress)
            request = TrainRequest(preset, overrides, out, workspace, print_note)
            trainer = held.enter_context(start(request))
        _fit(trainer, data_dir, watch, as_json)


def _resume(
    run: Path | None, overrides: "Overrides", data_dir: Path, watch: bool, as_json: bool
) -> None:
    from minigpt_cli.cli.console import print_note
    from minigpt_cli.cli.render import file_progress
    from minigpt_cli.data.workspace import Workspace
    from minigpt_cli.runs.folder import STATE, RunFolder, newest
    from minigpt_cli.training.setup import resume

    folder = RunFolder(run) if run else newest(STATE)
    with ExitStack() as held:
        with file_progress() as progress:
            workspace = Workspace(data_dir, progress, print_note)
            trainer = held.enter_context(resume(folder, overrides, workspace))
        print_note(f"Resuming {folder.path} at step {trainer.state.step:,}")
        _fit(trainer, data_dir, watch, as_json)


def _fit(trainer: "Trainer", data_dir: Path, watch: bool, as_json: bool) -> None:
    from minigpt_cli.cli.console import out, print_json
    from minigpt_cli.cli.train_progress import TrainProgress, next_commands, result_table, run_lines

    with (
        TrainProgress(trainer.config) as progress,
        _stopped_by_signals(trainer, progress.stopping) as signals,
    ):
        progress.print_lines(run_lines(trainer))
        result = _watched(trainer, progress) if watch else trainer.fit(progress)
    if signals and signals[0] not in (signal.SIGINT, signal.SIGTERM):
        raise typer.Exit(128 + signals[0])  # the terminal is gone, and nobody reads on
    if as_json:
        print_json({**asdict(result), "run": str(result.run)})
    else:
        out.print(result_table(trainer.folder, result))
    next_commands(trainer, data_dir, result)
    if not result.finished:
        raise typer.Exit(128 + (signals[0] if signals else signal.SIGINT))


def _watched(trainer: "Trainer", reporter: "Reporter") -> "TrainResult":
    """Trains, and keeps the run's report current."""
    from minigpt_cli.cli.live_report import LiveReport

    with LiveReport(reporter, trainer) as watching:
        return trainer.fit(watching)


@contextmanager
def _stopped_by_signals(trainer: "Trainer", answer: Callable[[str], None]) -> Iterator[list[int]]:
    """The first signal that ends a program ends the run after its step, the second immediately.

    Args:
        trainer: saves and stops.
        answer: called at once with what happens now.

    Yields:
        The signals received so far.
    """
    received: list[int] = []
    before = {int(number): signal.getsignal(number) for number in ENDING}
    # A shell has its background jobs ignore signals: they stay ignored.
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}

    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        trainer.stop_requested = True
        message = f"finishing step {trainer.state.step + 1:,}, saving…"
        # The main thread may be inside a write to the terminal, which cannot be entered again; and
        # a `Thread` takes a lock to start, which the main thread may hold.
        _thread.start_new_thread(answer, (message,))
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _list_presets(as_json: bool) -> None:
    from minigpt_cli.cli.console import out, print_json
    from minigpt_cli.cli.render import count, grid
    from minigpt_cli.config.loading import load_run_config

    configs = {name: load_run_config(name) for name in preset_names()}
    if as_json:
        print_json({name: config.model_dump(mode="json") for name, config in configs.items()})
        return
    table = grid("preset", "purpose", "family", "size", "block", "steps", text_columns=4)
    table.caption = "size: layers/heads/width"
    for name, config in configs.items():
        model = config.model
        size = f"{model.n_layer}/{model.n_head}/{model.n_embd}"
        numbers = [count(n) for n in (model.block_size, config.train.max_iters)]
        table.add_row(name, _first_sentence(name), model.family, size, *numbers)
    out.print(table)


def _list_settings(as_json: bool) -> None:
    from minigpt_cli.cli.console import out, print_json
    from minigpt_cli.cli.render import grid, raw
    from minigpt_cli.config import listing

    settings = listing.list_settings()
    if as_json:
        print_json(listing.as_json(settings))
        return
    table = grid("setting", "default", "what it does", text_columns=3)
    table.columns[0].no_wrap = True  # a name is there to be copied
    for setting in settings:
        family = f" ({setting.family} only)" if setting.family else ""
        default = setting.default or "-"
        limits = f" [{setting.limits}]" if setting.limits else ""
        table.add_row(setting.name, raw(default), raw(f"{setting.text}{family}{limits}"))
    out.print(table)


def _first_sentence(preset: str) -> str:
    """The first sentence of the comment at the top of a preset."""
    text = (shipped_folder("configs") / f"{preset}.toml").read_text(encoding="utf-8")
    comment = " ".join(line[1:].strip() for line in text.splitlines()[:4] if line.startswith("#"))
    return comment.partition(". ")[0].partition(";")[0].rstrip(".")


def _estimate(
    preset: str, overrides: "Overrides", data_dir: Path, out_path: Path | None, as_json: bool
) -> None:
    from minigpt_cli.cli.console import out, print_json, print_note
    from minigpt_cli.cli.render import file_progress
    from minigpt_cli.cli.train_progress import estimate_table
    from minigpt_cli.data.workspace import Workspace
    from minigpt_cli.training.estimate import estimate
    from minigpt_cli.training.setup import TrainRequest

    with file_progress() as progress:
        workspace = Workspace(data_dir, progress)
        request = TrainRequest(preset, overrides, out_path, workspace, print_note)
        config, found = estimate(request)
    if as_json:
        print_json({**asdict(found), "config": config.model_dump(mode="json")})
        return
    out.print(estimate_table(config, found))
    print_note("Nothing was saved. Leave out --dry-run to train.")
