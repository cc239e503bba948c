"""`minigpt train`: train a model on a text."""

import os
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

import typer

from minigpt_cli.cli import listings
from minigpt_cli.cli.help import examples
from minigpt_cli.cli.launch import launch
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
from minigpt_cli.cli.startup import import_torch
from minigpt_cli.cli.texts import (
    Include,
    TextField,
    reading_settings,
    tokenizer_settings,
    training_texts,
)
from minigpt_cli.cli.train_options import (
    BatchSize,
    Continue,
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
    Processes,
    ResultJson,
    Resume,
    Settings,
    TokenizerOption,
    Utilization,
    ValidationData,
    Watch,
    Words,
)
from minigpt_cli.cli.training import Following, fit
from minigpt_cli.cli.typed import model_to_begin_from, preset_and_texts, resumed_run
from minigpt_cli.config.choices import TrackerName
from minigpt_cli.io.ranks import started_together
from minigpt_cli.language import _

if TYPE_CHECKING:
    from minigpt_cli.config.loading import Overrides
    from minigpt_cli.data.workspace import Workspace
    from minigpt_cli.training.parallel.distributed import Group
    from minigpt_cli.training.setup import TrainRequest

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
    continue_: Continue = False,
    processes: Processes = None,
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
    if processes is not None and processes > 1 and not dry_run and not started_together():
        launch(processes)
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
    _check_usage(run, preset, init_from, resume, out, dry_run, continue_)
    if lora_rank is not None and init_from is None and not resume:
        raise typer.BadParameter(_("--lora-rank is only valid with --init-from"))
    _check_machines(resume, dry_run, gpus, gpu, utilization, max_memory)
    preset = preset or _usual_preset(init_from, overrides)
    following = Following(watch, _trackers(log or []))
    import_torch()
    wanted = _Wanted(preset, overrides, out, init_from, verify, max_memory)
    if dry_run and (gpus or gpu or utilization):
        _plan(wanted, data_dir, as_json, gpus, gpu, utilization)
    elif dry_run:
        _estimate(wanted, data_dir, as_json)
    elif resume:
        _train(replace(wanted, out=run or out), data_dir, following, as_json, resume=True)
    else:
        may_resume = continue_ or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
        _train(wanted, data_dir, following, as_json, may_resume=may_resume)


def _train(
    wanted: "_Wanted",
    data_dir: Path,
    following: Following,
    as_json: bool,
    *,
    resume: bool = False,
    may_resume: bool = False,
) -> None:
    """Trains, together with the other processes that were started with this one.

    Args:
        wanted: the run.
        data_dir: of texts.
        following: where the run can be followed.
        as_json: whether to print the result as JSON.
        resume: whether the run is there.
        may_resume: whether it is continued if it is there.
    """
    from minigpt_cli.runs.folder import RunFolder
    from minigpt_cli.training.parallel.distributed import connected

    following.check()
    folder = RunFolder(wanted.out) if may_resume and wanted.out is not None else None
    with connected() as group:
        if resume:
            _resume(wanted, data_dir, following, as_json, group)
        elif folder is not None and group.first(lambda: folder.has(folder.state)):
            _continue(wanted, data_dir, following, as_json, group)
        else:
            _start(wanted, data_dir, following, as_json, group)


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
    continue_: bool,
) -> None:
    """Raises if options contradict each other."""
    if continue_ and (resume or dry_run):
        raise typer.BadParameter(_("--continue cannot be combined with --resume or --dry-run"))
    if continue_ and out is None:
        raise typer.BadParameter(_("--continue needs --out, which names the run to continue"))
    if os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0" and not (out or resume):
        raise typer.BadParameter(_("torchrun --max-restarts needs --out, which names the run"))
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
class _Wanted:
    """A run, as the user asked for it."""

    preset: str
    overrides: "Overrides"
    out: Path | None
    init_from: Path | None
    verify: bool
    max_memory: int | None = None

    def request(self, workspace: "Workspace", group: "Group | None" = None) -> "TrainRequest":
        """The same for the core, with the model to begin from loaded.

        Raises:
            MinigptError: that model cannot be read.
        """
        from minigpt_cli.cli.console import print_note
        from minigpt_cli.cli.loading import load
        from minigpt_cli.training.parallel.distributed import ALONE
        from minigpt_cli.training.setup import TrainRequest

        initial = None
        if self.init_from is not None:
            initial = load(model_to_begin_from(self.init_from)).checkpoint
        return TrainRequest(
            self.preset,
            self.overrides,
            self.out,
            workspace,
            print_note,
            initial,
            self.max_memory,
            group or ALONE,
        )


def _start(
    wanted: _Wanted, data_dir: Path, following: Following, as_json: bool, group: "Group"
) -> None:
    from minigpt_cli.cli.render import file_progress
    from minigpt_cli.data.workspace import Workspace
    from minigpt_cli.training.setup import start

    with ExitStack() as held:
        with file_progress() as progress:
            request = wanted.request(Workspace(data_dir, progress, verify=wanted.verify), group)
            trainer = held.enter_context(start(request))
        fit(trainer, data_dir, following, as_json)


def _continue(
    wanted: _Wanted, data_dir: Path, following: Following, as_json: bool, group: "Group"
) -> None:
    """Continues a run that a restarted command names; a finished one needs nothing more."""
    from minigpt_cli.cli.console import print_note
    from minigpt_cli.training.setup import FinishedError

    try:
        _resume(wanted, data_dir, following, as_json, group)
    except FinishedError as finished:
        print_note(str(finished).partition(";")[0])


def _resume(
    wanted: _Wanted, data_dir: Path, following: Following, as_json: bool, group: "Group"
) -> None:
    from minigpt_cli.cli.console import print_note
    from minigpt_cli.cli.loading import run_to_resume
    from minigpt_cli.cli.render import file_progress
    from minigpt_cli.data.workspace import Workspace
    from minigpt_cli.runs.folder import RunFolder
    from minigpt_cli.training.setup import resume

    named = wanted.out
    folder = RunFolder(
        Path(group.first(lambda: str(named or run_to_resume(set(wanted.overrides)).path)))
    )
    with ExitStack() as held:
        with file_progress() as progress:
            workspace = Workspace(data_dir, progress, print_note, wanted.verify)
            trainer = held.enter_context(resume(folder, wanted.overrides, workspace, group))
        print_note(
            _("Resuming {path} at step {step:,}").format(path=folder.path, step=trainer.state.step)
        )
        fit(trainer, data_dir, following, as_json)


def _estimate(wanted: _Wanted, data_dir: Path, as_json: bool) -> None:
    from minigpt_cli.cli.console import out, print_json, print_note
    from minigpt_cli.cli.render import file_progress
    from minigpt_cli.cli.train_progress import estimate_table
    from minigpt_cli.data.workspace import Workspace
    from minigpt_cli.training.planning.estimate import estimate

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
    from minigpt_cli.training.planning.accelerators import DEFAULT, accelerator
    from minigpt_cli.training.planning.plan import UTILIZATION, Machines, planned

    machines = Machines(gpus or 1, accelerator(gpu or DEFAULT), utilization or UTILIZATION)
    with file_progress() as progress:
        workspace = Workspace(data_dir, progress, verify=wanted.verify)
        config, found = planned(wanted.request(workspace), machines)
    print_plan(config, found, as_json)
