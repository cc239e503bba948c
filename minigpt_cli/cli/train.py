"""`minigpt train`: train a model on a text."""

import signal
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

import typer

from minigpt_cli.cli import listings
from minigpt_cli.cli.help import examples
from minigpt_cli.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_PRESET,
    DataDir,
    DeviceOverride,
    Encoding,
    PrecisionOverride,
    Preset,
    SeedOverride,
    Verify,
    parse_settings,
)
from minigpt_cli.cli.texts import (
    Include,
    TextField,
    reading_settings,
    tokenizer_settings,
    training_texts,
)
from minigpt_cli.cli.train_options import (
    BatchSize,
    Data,
    DryRun,
    Freeze,
    Gpu,
    Gpus,
    InitFrom,
    LearningRate,
    ListPresets,
    ListSettings,
    Log,
    LoraRank,
    MaxIters,
    MaxMemory,
    Out,
    ResultJson,
    Resume,
    Settings,
    TokenizerOption,
    Utilization,
    ValidationData,
    Watch,
    Words,
)
from minigpt_cli.cli.typed import model_to_begin_from, preset_and_texts, resumed_run
from minigpt_cli.config.choices import TrackerName
from minigpt_cli.language import _

if TYPE_CHECKING:
    from minigpt_cli.config.loading import Overrides
    from minigpt_cli.data.workspace import Workspace
    from minigpt_cli.training.reporter import Reporter, TrainResult
    from minigpt_cli.training.setup import TrainRequest
    from minigpt_cli.training.trainer import Trainer

FINETUNE_PRESET, LORA_PRESET = "finetune", "lora"

EXAMPLE = examples(
    "minigpt train --preset small",
    "minigpt train book.txt --max-iters 2000",
    "minigpt train --resume",
)


def train(
    words: Words = None,
    preset: Preset = None,
    init_from: InitFrom = None,
    resume: Resume = False,
    out: Out = None,
    watch: Watch = False,
    log: Log = None,
    dry_run: DryRun = False,
    gpus: Gpus = None,
    gpu: Gpu = None,
    utilization: Utilization = None,
    max_memory: MaxMemory = None,
    list_presets: ListPresets = False,
    list_settings: ListSettings = False,
    data: Data = None,
    val_data: ValidationData = None,
    tokenizer: TokenizerOption = None,
    text_field: TextField = None,
    include: Include = None,
    encoding: Encoding = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    verify: Verify = False,
    settings: Settings = None,
    max_iters: MaxIters = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    freeze: Freeze = None,
    lora_rank: LoraRank = None,
    precision: PrecisionOverride = None,
    device: DeviceOverride = None,
    seed: SeedOverride = None,
    as_json: ResultJson = False,
) -> None:
    """Train a model on a text, from scratch or from another model.

    Watch the loss fall and the samples improve; Ctrl-C saves and stops.
    """
    if list_presets or list_settings:
        (listings.list_presets if list_presets else listings.list_settings)(as_json)
        return
    run = resumed_run(words or []) if resume else None
    if words and not resume:
        preset, data = preset_and_texts(words, preset, data)
    named = {
        "data.encoding": encoding,
        "train.max_iters": max_iters,
        "train.batch_size": batch_size,
        "optimizer.learning_rate": learning_rate,
        "train.freeze": freeze,
        "lora.rank": lora_rank,
        "train.precision": precision,
        "train.device": device,
        "train.seed": seed,
    }
    overrides = parse_settings(settings or [])
    overrides |= {name: value for name, value in named.items() if value is not None}
    overrides |= tokenizer_settings(tokenizer) | reading_settings(include, text_field)
    overrides |= training_texts(data, val_data, data_dir, text_field)
    _check_usage(run, preset, init_from, resume, out, dry_run)
    if lora_rank is not None and init_from is None and not resume:
        raise typer.BadParameter(_("--lora-rank is only valid with --init-from"))
    _check_machines(resume, dry_run, gpus, gpu, utilization, max_memory)
    preset = preset or _usual_preset(init_from, overrides)
    following = _Following(watch, _trackers(log or []))
    wanted = _Wanted(preset, overrides, out, init_from, verify, max_memory)
    if resume:
        _resume(replace(wanted, out=run or out), data_dir, following, as_json)
    elif not dry_run:
        _start(wanted, data_dir, following, as_json)
    elif gpus or gpu or utilization:
        _plan(wanted, data_dir, as_json, gpus, gpu, utilization)
    else:
        _estimate(wanted, data_dir, as_json)


def _usual_preset(init_from: Path | None, overrides: "Overrides") -> str:
    """The preset for a new model, for training another model on, or for adapters to it."""
    if init_from is None:
        return DEFAULT_PRESET
    has_adapters = any(name.startswith("lora.") for name in overrides)
    return LORA_PRESET if has_adapters else FINETUNE_PRESET


def _check_usage(
    run: Path | None,
    preset: str | None,
    init_from: Path | None,
    resume: bool,
    out: Path | None,
    dry_run: bool,
) -> None:
    """Raises if options contradict each other."""
    if resume and (preset is not None or dry_run or init_from is not None):
        raise typer.BadParameter(
            _("--resume cannot be combined with --preset, --init-from or --dry-run")
        )
    if run is not None and out is not None:
        raise typer.BadParameter(_("RUN and --out cannot be combined"))


def _check_machines(
    resume: bool,
    dry_run: bool,
    gpus: int | None,
    gpu: str | None,
    utilization: float | None,
    max_memory: int | None,
) -> None:
    """Raises if options about machines contradict the others."""
    if not dry_run and (gpus or gpu or utilization):
        raise typer.BadParameter(
            _(
                "--gpus, --gpu and --utilization plan a run, and need --dry-run; to train on "
                "several GPUs, see docs/scaling.md"
            )
        )
    if resume and max_memory:
        raise typer.BadParameter(
            _("--resume cannot be combined with --max-memory: a run keeps its batches")
        )


def _trackers(names: list[str]) -> tuple[TrackerName, ...]:
    known = get_args(TrackerName)
    for name in names:
        if name not in known:
            raise typer.BadParameter(
                _("--log {name}: use {known}").format(name=name, known=_(" or ").join(known))
            )
    return cast(tuple[TrackerName, ...], tuple(dict.fromkeys(names)))


@dataclass(frozen=True)
class _Following:
    """Where a run can be followed, besides the terminal."""

    report: bool
    trackers: tuple[TrackerName, ...]

    def check(self) -> None:
        """Raises unless every tracker can be used, before the work begins."""
        from minigpt_cli.runs.trackers import check_installed

        for name in self.trackers:
            check_installed(name)

    def fit(self, trainer: "Trainer", reporter: "Reporter") -> "TrainResult":
        """Trains, and keeps the report and the trackers current."""
        from minigpt_cli.cli.live_report import LiveReport
        from minigpt_cli.cli.tracking import Tracking

        with ExitStack() as held:
            if self.trackers:
                reporter = held.enter_context(Tracking(reporter, trainer, self.trackers))
            if self.report:
                reporter = held.enter_context(LiveReport(reporter, trainer))
            return trainer.fit(reporter)


@dataclass(frozen=True)
class _Wanted:
    """A run, as the user asked for it."""

    preset: str
    overrides: "Overrides"
    out: Path | None
    init_from: Path | None
    verify: bool
    max_memory: int | None = None

    def request(self, workspace: "Workspace") -> "TrainRequest":
        """The same for the core, with the model to begin from loaded.

        Raises:
            MinigptError: that model cannot be read.
        """
        from minigpt_cli.cli.console import print_note
        from minigpt_cli.cli.loading import load
        from minigpt_cli.training.setup import TrainRequest

        initial = None
        if self.init_from is not None:
            initial = load(model_to_begin_from(self.init_from)).checkpoint
        return TrainRequest(
            self.preset, self.overrides, self.out, workspace, print_note, initial, self.max_memory
        )


def _start(wanted: _Wanted, data_dir: Path, following: _Following, as_json: bool) -> None:
    from minigpt_cli.cli.render import file_progress
    from minigpt_cli.data.workspace import Workspace
    from minigpt_cli.training.setup import start

    following.check()
    with ExitStack() as held:
        with file_progress() as progress:
            request = wanted.request(Workspace(data_dir, progress, verify=wanted.verify))
            trainer = held.enter_context(start(request))
        _fit(trainer, data_dir, following, as_json)


def _resume(wanted: _Wanted, data_dir: Path, following: _Following, as_json: bool) -> None:
    from minigpt_cli.cli.console import print_note
    from minigpt_cli.cli.loading import run_to_resume
    from minigpt_cli.cli.render import file_progress
    from minigpt_cli.data.workspace import Workspace
    from minigpt_cli.runs.folder import RunFolder
    from minigpt_cli.training.setup import resume

    following.check()
    folder = RunFolder(wanted.out) if wanted.out else run_to_resume(set(wanted.overrides))
    with ExitStack() as held:
        with file_progress() as progress:
            workspace = Workspace(data_dir, progress, print_note, wanted.verify)
            trainer = held.enter_context(resume(folder, wanted.overrides, workspace))
        print_note(
            _("Resuming {path} at step {step:,}").format(path=folder.path, step=trainer.state.step)
        )
        _fit(trainer, data_dir, following, as_json)


def _fit(trainer: "Trainer", data_dir: Path, following: _Following, as_json: bool) -> None:
    from minigpt_cli.cli.console import out, print_json, print_note
    from minigpt_cli.cli.stopping import stopped_by_signals
    from minigpt_cli.cli.train_progress import (
        TrainProgress,
        next_commands,
        quit_message,
        result_table,
        run_lines,
    )

    try:
        with (
            TrainProgress(trainer.config, trainer.state.step) as progress,
            stopped_by_signals(trainer, progress.stopping) as signals,
        ):
            progress.print_lines(run_lines(trainer))
            result = following.fit(trainer, progress)
    except KeyboardInterrupt:  # the second
        print_note(quit_message(trainer))
        raise
    if signals and signals[0] not in (signal.SIGINT, signal.SIGTERM):
        raise typer.Exit(128 + signals[0])  # the terminal is gone, and nobody reads on
    if as_json:
        print_json({**asdict(result), "run": str(result.run)})
    else:
        out.print(result_table(trainer.folder, result))
    next_commands(trainer, data_dir, result)
    if not result.finished:
        raise typer.Exit(128 + (signals[0] if signals else signal.SIGINT))


def _estimate(wanted: _Wanted, data_dir: Path, as_json: bool) -> None:
    from minigpt_cli.cli.console import out, print_json, print_note
    from minigpt_cli.cli.render import file_progress
    from minigpt_cli.cli.train_progress import estimate_table
    from minigpt_cli.data.workspace import Workspace
    from minigpt_cli.training.estimate import estimate

    with file_progress() as progress:
        workspace = Workspace(data_dir, progress, verify=wanted.verify)
        config, found = estimate(wanted.request(workspace))
    if as_json:
        print_json({**asdict(found), "config": config.model_dump(mode="json")})
        return
    out.print(estimate_table(config, found))
    print_note(_("Nothing was saved. Leave out --dry-run to train."))


def _plan(
    wanted: _Wanted,
    data_dir: Path,
    as_json: bool,
    gpus: int | None,
    gpu: str | None,
    utilization: float | None,
) -> None:
    from minigpt_cli.cli.plan_table import print_plan
    from minigpt_cli.cli.render import file_progress
    from minigpt_cli.data.workspace import Workspace
    from minigpt_cli.training.accelerators import DEFAULT, accelerator
    from minigpt_cli.training.plan import UTILIZATION, Machines, planned

    machines = Machines(gpus or 1, accelerator(gpu or DEFAULT), utilization or UTILIZATION)
    with file_progress() as progress:
        workspace = Workspace(data_dir, progress, verify=wanted.verify)
        config, found = planned(wanted.request(workspace), machines)
    print_plan(config, found, as_json)
