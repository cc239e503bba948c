"""`minigpt train`: train a model on a text."""

import os
from contextlib import ExitStack
from dataclasses import asdict, dataclass
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
    Json,
    PrecisionOverride,
    Preset,
    SeedOverride,
    parse_settings,
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
    MaxIters,
    MaxMemory,
    Out,
    Processes,
    Resume,
    Settings,
    TokenizerOption,
    Utilization,
    ValidationData,
    Watch,
    Words,
)
from minigpt_cli.cli.training import Following, fit
from minigpt_cli.cli.typed import preset_and_texts, resumed_run
from minigpt_cli.config.choices import TrackerName
from minigpt_cli.language import _

if TYPE_CHECKING:
    from minigpt_cli.config.loading import Overrides
    from minigpt_cli.data.workspace import Workspace
    from minigpt_cli.training.distributed import Group
    from minigpt_cli.training.setup import TrainRequest

FINETUNE_PRESET = "finetune"

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
    encoding: Encoding = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    settings: Settings = None,
    max_iters: MaxIters = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    freeze: Freeze = None,
    precision: PrecisionOverride = None,
    device: DeviceOverride = None,
    seed: SeedOverride = None,
    as_json: Json = False,
) -> None:
    """Train a model on a text, from scratch or from another model.

    Watch the loss fall and the samples improve; Ctrl-C saves and stops.
    """
    if list_presets or list_settings:
        (listings.list_presets if list_presets else listings.list_settings)(as_json)
        return
    if processes is not None and processes > 1 and not dry_run and "RANK" not in os.environ:
        launch(processes)
    run = resumed_run(words or []) if resume else None
    if words and not resume:
        preset, data = preset_and_texts(words, preset, data)
    named = {
        "data.corpus": data,
        "data.val_corpus": val_data,
        "data.tokenizer": tokenizer,
        "data.encoding": encoding,
        "train.max_iters": max_iters,
        "train.batch_size": batch_size,
        "optimizer.learning_rate": learning_rate,
        "train.freeze": freeze,
        "train.precision": precision,
        "train.device": device,
        "train.seed": seed,
    }
    overrides = parse_settings(settings or [])
    overrides |= {name: value for name, value in named.items() if value is not None}
    _check_usage(run, preset, init_from, resume, out, dry_run, continue_)
    _check_machines(resume, dry_run, gpus, gpu, utilization, max_memory)
    preset = preset or (DEFAULT_PRESET if init_from is None else FINETUNE_PRESET)
    following = Following(watch, _trackers(log or []))
    wanted = _Wanted(preset, overrides, out, init_from, max_memory)
    if dry_run and (gpus or gpu or utilization):
        _plan(wanted, data_dir, as_json, gpus, gpu, utilization)
    elif dry_run:
        _estimate(wanted, data_dir, as_json)
    elif resume:
        _train(wanted, data_dir, following, as_json, run or out, is_sure=True)
    else:
        goes_on = continue_ or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
        _train(wanted, data_dir, following, as_json, out if goes_on else None, is_sure=False)


def _train(
    wanted: "_Wanted",
    data_dir: Path,
    following: Following,
    as_json: bool,
    run: Path | None,
    *,
    is_sure: bool,
) -> None:
    """Trains, together with the other processes that were started with this one.

    Args:
        wanted: the new run, unless one is continued.
        data_dir: of texts.
        following: where the run can be followed.
        as_json: whether to print the result as JSON.
        run: the run to continue, if it is there; None is the newest, or with `is_sure` false none.
        is_sure: whether the user says that there is a run to continue.
    """
    from minigpt_cli.runs.folder import RunFolder
    from minigpt_cli.training.distributed import connected

    following.check()
    folder = None if run is None else RunFolder(run)
    with connected() as group:
        if is_sure:
            _resume(run, wanted.overrides, data_dir, following, as_json, group)
        elif folder is not None and group.first(lambda: folder.has(folder.state)):
            _continue(folder.path, wanted.overrides, data_dir, following, as_json, group)
        else:
            _start(wanted, data_dir, following, as_json, group)


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
    """A new run, as the user asked for it."""

    preset: str
    overrides: "Overrides"
    out: Path | None
    init_from: Path | None
    max_memory: int | None = None

    def request(self, workspace: "Workspace", group: "Group | None" = None) -> "TrainRequest":
        """The same for the core, with the model to begin from loaded.

        Raises:
            MinigptError: that model cannot be read.
        """
        from minigpt_cli.cli.console import print_note
        from minigpt_cli.cli.loading import load
        from minigpt_cli.training.distributed import ALONE
        from minigpt_cli.training.setup import TrainRequest

        initial = None if self.init_from is None else load(self.init_from).checkpoint
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
            request = wanted.request(Workspace(data_dir, progress), group)
            trainer = held.enter_context(start(request))
        fit(trainer, data_dir, following, as_json)


def _continue(
    run: Path,
    overrides: "Overrides",
    data_dir: Path,
    following: Following,
    as_json: bool,
    group: "Group",
) -> None:
    """Continues a run that a restarted command names; a finished one needs nothing more."""
    from minigpt_cli.cli.console import print_note
    from minigpt_cli.training.setup import FinishedError

    try:
        _resume(run, overrides, data_dir, following, as_json, group)
    except FinishedError as finished:
        print_note(str(finished).partition(";")[0])


def _resume(
    run: Path | None,
    overrides: "Overrides",
    data_dir: Path,
    following: Following,
    as_json: bool,
    group: "Group",
) -> None:
    from minigpt_cli.cli.console import print_note
    from minigpt_cli.cli.render import file_progress
    from minigpt_cli.data.workspace import Workspace
    from minigpt_cli.runs.folder import STATE, RunFolder, newest
    from minigpt_cli.training.setup import resume

    folder = RunFolder(Path(group.first(lambda: str(run or newest(STATE).path))))
    with ExitStack() as held:
        with file_progress() as progress:
            workspace = Workspace(data_dir, progress, print_note)
            trainer = held.enter_context(resume(folder, overrides, workspace, group))
        print_note(
            _("Resuming {path} at step {step:,}").format(path=folder.path, step=trainer.state.step)
        )
        fit(trainer, data_dir, following, as_json)


def _estimate(wanted: _Wanted, data_dir: Path, as_json: bool) -> None:
    from minigpt_cli.cli.console import out, print_json, print_note
    from minigpt_cli.cli.render import file_progress
    from minigpt_cli.cli.train_progress import estimate_table
    from minigpt_cli.data.workspace import Workspace
    from minigpt_cli.training.estimate import estimate

    with file_progress() as progress:
        config, found = estimate(wanted.request(Workspace(data_dir, progress)))
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
        config, found = planned(wanted.request(Workspace(data_dir, progress)), machines)
    print_plan(config, found, as_json)
