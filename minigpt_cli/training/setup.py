"""From what a user asks for to a trainer that is ready, for a new run or a resumed one."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from minigpt_cli.config.loading import (
    Overrides,
    load_run_config,
    read_toml,
    resolve,
    with_full_names,
)
from minigpt_cli.config.schema import RunConfig, differences
from minigpt_cli.data.corpora.corpus import known_corpora
from minigpt_cli.data.dataset import Dataset
from minigpt_cli.data.workspace import Workspace
from minigpt_cli.device import dtype_name, matmul_flops, pick_device, pick_dtype
from minigpt_cli.errors import CheckpointError, ConfigError, CorpusError
from minigpt_cli.language import _
from minigpt_cli.model.compilation import should_compile
from minigpt_cli.runs.checkpoint import Checkpoint
from minigpt_cli.runs.folder import CONFIG, RunFolder
from minigpt_cli.runs.run import Run
from minigpt_cli.runs.writer import NoWriter, RunWriter, Writer
from minigpt_cli.tokenizer.files import read_tokenizer
from minigpt_cli.training.automatic import AUTO, automatic_config
from minigpt_cli.training.continuation import continued, with_tokenizer_file
from minigpt_cli.training.learner import Learner
from minigpt_cli.training.parallel.agreement import (
    as_json,
    check_same_overrides,
    check_same_settings,
    for_these_processes,
    from_json,
    shared_dataset,
    told,
)
from minigpt_cli.training.parallel.distributed import ALONE, Group, connected
from minigpt_cli.training.planning.fitting import fit_batch, memory_here
from minigpt_cli.training.reporter import Reporter, TrainResult
from minigpt_cli.training.schedule import learning_rate
from minigpt_cli.training.speed import expected_seconds, training_threads
from minigpt_cli.training.state import SavedRun, saved_run
from minigpt_cli.training.trainer import Trainer

RESUMABLE_SETTINGS = {
    "train.max_iters", "train.eval_interval", "train.eval_tokens", "train.log_interval",
    "train.sample_tokens", "train.save_every_seconds", "train.device", "train.compile",
    "train.threads", "train.on_nonfinite", "train.patience", "train.activation_checkpointing",
    "data.corpus", "data.val_corpus", "data.encoding", "data.include", "data.text_field",
    "distributed.strategy", "distributed.timeout_seconds",
}  # fmt: skip
"""The settings that a resumed run may change; any other would make it a different run.

Where its text is may change too, but not the text, which is known by its fingerprint.
"""

_JUMP = 1.5
"""A change of the learning rate by this factor, from one step to the next, is said."""


@dataclass(frozen=True)
class TrainRequest:
    """What to train, on which text, where."""

    preset: RunConfig | str
    """A whole configuration, a shipped preset's name, or the path of a TOML file."""
    overrides: Overrides = field(default_factory=dict)
    """Settings to change, by full name, as in `{"train.max_iters": 500}`."""
    out: Path | None = None
    """The new run folder; by default `runs/<text>` or, for a known corpus, `runs/<preset>`."""
    workspace: Workspace = field(default_factory=lambda: Workspace(Path("data")))
    note: Callable[[str], None] = lambda _: None
    """Called with what was chosen."""
    initial: Checkpoint | None = None
    """The model to begin from, with its tokenizer; None begins from nothing."""
    max_memory: int | None = None
    """Bytes that the process, or its accelerator, may take: a batch that needs more is split."""
    group: Group = ALONE
    """The processes that train together."""

    @property
    def run_name(self) -> str:
        """The preset's name; for a run's own `config.toml`, that of the run."""
        if isinstance(self.preset, RunConfig):
            return "run"
        path = Path(self.preset)
        return path.resolve().parent.name if path.name == "config.toml" else path.stem

    def config(self) -> RunConfig:
        """The configuration, resolved for this machine.

        Raises:
            ConfigError: in the preset or the overrides, or the device is not on this machine.
        """
        return resolve_machine(self.unresolved_config())

    def unresolved_config(self) -> RunConfig:
        """The configuration, the same on every machine.

        Raises:
            ConfigError: in the preset or the overrides.
        """
        overrides, initial = self.overrides, self.initial
        if initial is not None and self.preset == AUTO:
            raise ConfigError(
                _(
                    "preset auto chooses the sizes of a new model; to begin from a model, use "
                    "preset finetune"
                )
            )
        if initial is not None:
            overrides = {name: v for name, v in overrides.items() if not name.startswith("model.")}
        if isinstance(self.preset, RunConfig):
            config = resolve(self.preset.model_dump(), overrides, _("the configuration"))
        elif self.preset == AUTO:
            config = resolve({}, overrides, _("preset auto"))
        else:
            config = load_run_config(self.preset, overrides)
        if initial is not None:
            config = continued(config, initial, self.overrides)
        elif config.lora is not None:
            raise ConfigError(
                _("lora: adapters are for a model that exists; name it with --init-from")
            )
        elif config.data.tokenizer_file is not None:
            config = with_tokenizer_file(config, self.overrides)
        elif config.data.tokenizer_sha256 is not None:
            raise ConfigError(
                _(
                    "this configuration is of a run that began from another model; name that model "
                    "with --init-from"
                )
            )
        return config

    def learner(self) -> Learner:
        """Prepares the text and builds the model.

        Raises:
            MinigptError: in the preset or the data, or memory ran out.
        """
        wanted, initial, group = self.unresolved_config(), self.initial, self.group
        check_same_settings(wanted, group)
        config = resolve_machine(wanted)
        tokenizer = None if initial is None else initial.tokenizer
        if initial is None and config.data.tokenizer_file is not None:
            tokenizer = read_tokenizer(Path(config.data.tokenizer_file))
        dataset = shared_dataset(
            lambda: self.workspace.dataset(config.data, tokenizer), self.workspace, group
        )
        group.join(config.distributed.timeout_seconds)
        if self.preset == AUTO:
            config, chosen = self._automatic(config, dataset)
            self.note(_("Preset auto: {chosen}").format(chosen=chosen))
        if self.max_memory is not None:
            at = partial(memory_here, config, dataset.tokenizer.vocab_size)
            config, note = fit_batch(config, self.max_memory, at)
            self.note(note)
        config = told(config, group)
        learner = Learner(config, dataset, None if initial is None else initial.model, group)
        if dataset.metadata.val_tokens < 2:  # better now than at the first evaluation
            raise CorpusError(
                _(
                    "{name}: the validation text has {tokens} tokens and needs at least 2; use a "
                    "longer text, or a larger data.val_fraction"
                ).format(name=dataset.metadata.corpus, tokens=dataset.metadata.val_tokens),
                settings=("data.val_fraction=0.2",),
            )
        # Before there is a run folder: also finds out whether memory suffices for a step.
        threads = config.train.threads or group.threads() or training_threads(learner)
        torch.set_num_threads(threads)
        train = config.train.model_copy(update={"threads": threads})
        learner.config = config.model_copy(update={"train": train})
        if train.compile != "on":
            learner.expected_seconds = expected_seconds(learner, train.max_iters)
        return learner

    def _automatic(self, config: RunConfig, dataset: Dataset) -> tuple[RunConfig, str]:
        metadata, device = dataset.metadata, pick_device(config.train.device)
        peak = matmul_flops(device, pick_dtype(config.train.precision, device))
        config, chosen = automatic_config(
            metadata.train_tokens, metadata.vocab_size, peak, self.overrides
        )
        return resolve_machine(config), chosen

    def run_name_for(self, learner: Learner) -> str:
        """The name of a run's folder: of the user's own text, or of the preset for known ones."""
        own = set(learner.config.data.corpus) - set(known_corpora())
        is_again = not isinstance(self.preset, RunConfig) and Path(self.preset).name == CONFIG
        return learner.dataset.metadata.corpus if own and not is_again else self.run_name


class FinishedError(CheckpointError):
    """A run that is to be continued has reached its end."""


def train(
    config: RunConfig | str,
    overrides: Overrides | None = None,
    *,
    out: Path | str | None = None,
    data_dir: Path | str = "data",
    reporter: Reporter | None = None,
) -> TrainResult:
    """Trains a model from scratch, as `minigpt train` does.

    In a program that `torchrun` started several times, all of them train one model together.

    Args:
        config: a configuration, a shipped preset's name, or the path of a TOML file.
        overrides: settings to change, as in `{"train.max_iters": 500}`; the section may be left
            out.
        out: the new run folder; by default `runs/<text>` or, for a known corpus, `runs/<preset>`.
        data_dir: where downloaded and prepared texts are kept.
        reporter: receives training events; a `Reporter` of one's own overrides what it needs.

    Returns:
        How the run ended; its `run` is the folder with the checkpoint and the metrics.

    Raises:
        MinigptError: in the configuration, the data or the run folder; or training failed.
    """
    request = TrainRequest(
        config,
        with_full_names(overrides or {}),
        Path(out) if out is not None else None,
        Workspace(Path(data_dir)),
    )
    with connected() as group, start(replace(request, group=group)) as trainer:
        return trainer.fit(reporter or Reporter())


@contextmanager
def start(request: TrainRequest) -> Iterator[Trainer]:
    """Prepares a new run, and holds its folder while in the context.

    Everything is checked before the folder is created.

    Raises:
        MinigptError: in the preset, the data or the folder.
    """
    learner, group = request.learner(), request.group
    with ExitStack() as held:
        name = request.run_name_for(learner)
        yield Trainer(learner, _writer(held, lambda: Run.new(name, request.out), group))


def _writer(
    held: ExitStack, hold: Callable[[], AbstractContextManager[Run]], group: Group
) -> Writer:
    """The writer of a run's folder, which rank 0 holds until `held` ends."""
    run: Run | None = None

    def enter() -> str:
        nonlocal run
        run = held.enter_context(hold())
        return str(run.folder.path)

    path = group.first(enter)
    return NoWriter(RunFolder(Path(path))) if run is None else RunWriter(run)


@contextmanager
def resume(
    folder: RunFolder, overrides: Overrides, workspace: Workspace, group: Group = ALONE
) -> Iterator[Trainer]:
    """Prepares to continue a run from its last save, and holds its folder while in the context.

    The number of processes may be another than before. Only rank 0 needs the folder.

    Raises:
        FinishedError: the run has reached its end.
        CheckpointError: nothing is saved, or an override is not in `RESUMABLE_SETTINGS`.
        MinigptError: in the overrides or the data.
    """
    check_same_overrides(overrides, group)
    with ExitStack() as held:
        writer = _writer(held, lambda: Run.existing(folder), group)
        folder = writer.folder
        config, fingerprint = _resumed_config(folder, overrides, group)
        trained = SavedRun(config, fingerprint)
        named = {"data.corpus", "data.val_corpus"} & overrides.keys()
        dataset = shared_dataset(lambda: workspace.own_dataset(trained, named), workspace, group)
        group.join(config.distributed.timeout_seconds)
        trainer = Trainer(Learner(config, dataset, group=group), writer)
        trainer.restore()
        if trainer.stopped_early:
            raise FinishedError(
                _(
                    "{path}: ended early, at step {step}; to train longer, raise train.patience, "
                    "or set it to 0"
                ).format(path=folder.path, step=trainer.state.step),
                settings=("train.patience=0",),
            )
        if trainer.state.step >= config.train.max_iters:
            raise FinishedError(
                _(
                    "{path}: already finished, at step {step}; to train longer, raise "
                    "train.max_iters"
                ).format(path=folder.path, step=trainer.state.step),
                settings=("train.max_iters",),
            )
        if group.is_first:
            _say_if_the_rate_jumps(folder, trainer, workspace)
        yield trainer


def _say_if_the_rate_jumps(folder: RunFolder, trainer: Trainer, workspace: Workspace) -> None:
    """Another number of steps changes the learning rate at the step where the run goes on."""
    before, after, step = saved_run(folder.state).config, trainer.config, trainer.state.step
    if not step or before.train.max_iters == after.train.max_iters:
        return
    old = learning_rate(before.optimizer, step, before.train.max_iters)
    new = learning_rate(after.optimizer, step + 1, after.train.max_iters)
    if new > _JUMP * old:
        note = _(
            "The learning rate jumps from {old:.2g} to {new:.2g}, because its schedule changes "
            "from {planned:,} to {steps:,} steps: the loss will rise first, and the run is not "
            "what one of that length would have been"
        )
    elif old > _JUMP * new:
        note = _(
            "The learning rate falls at once from {old:.2g} to {new:.2g}, because its schedule "
            "changes from {planned:,} to {steps:,} steps: the run is not what one of that length "
            "would have been"
        )
    else:
        return
    planned, steps = before.train.max_iters, after.train.max_iters
    workspace.note(note.format(old=old, new=new, planned=planned, steps=steps))


def _resumed_config(folder: RunFolder, overrides: Overrides, group: Group) -> tuple[RunConfig, str]:
    """The run's configuration with overrides applied, and the fingerprint of its text."""

    def read() -> tuple[str, str]:
        saved = saved_run(folder.state)
        after = resolve(read_toml(folder.config), overrides, str(folder.config))
        after = resolve_machine(for_these_processes(after, overrides, group))
        changed = [
            _("{name} was {old}, now {new}").format(name=name, old=old, new=new)
            for name, (old, new) in differences(saved.config, after).items()
            if name not in RESUMABLE_SETTINGS
        ]
        if changed:
            sizes = any(text.startswith(("model.", "data.")) for text in changed)
            begin = (
                _("start a new run")
                if sizes
                else _("go on in a new run (--init-from {path})").format(path=folder.path)
            )
            raise CheckpointError(
                _(
                    "{path}: a resumed run keeps its settings ({changed}); leave them out, or "
                    "{begin}; only its length, its evaluations, the place of its text and the "
                    "machine may change (docs/commands.md)"
                ).format(path=folder.path, changed=_("; ").join(changed), begin=begin)
            )
        return as_json(after), saved.fingerprint

    config, fingerprint = group.first(read)
    return from_json(config), fingerprint


def resolve_machine(config: RunConfig) -> RunConfig:
    """The same configuration with `auto` replaced by what suits this machine.

    The run folder records the result, so that a resumed run computes the same way.

    Raises:
        ConfigError: the device is not on this machine.
    """
    train = config.train
    device = pick_device(train.device)
    compiles = should_compile(train.compile, device, train.max_iters)
    resolved = {
        "device": str(device),
        "precision": dtype_name(pick_dtype(train.precision, device)),
        "compile": "on" if compiles else "off",
    }
    return config.model_copy(update={"train": train.model_copy(update=resolved)})
