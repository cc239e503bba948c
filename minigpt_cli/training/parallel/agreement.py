"""What the processes of a run must have in common before they train: settings and text."""

import json
from collections.abc import Callable

import torch

from minigpt_cli.config.loading import Overrides
from minigpt_cli.config.schema import RunConfig, differences
from minigpt_cli.data.dataset import Dataset, find_prepared
from minigpt_cli.data.workspace import Workspace
from minigpt_cli.errors import ConfigError, CorpusError
from minigpt_cli.language import _
from minigpt_cli.training.parallel.distributed import Group

_PLACES = {"data.corpus", "data.val_corpus"}
"""Settings that may differ: a text may be elsewhere on another machine."""


def for_these_processes(config: RunConfig, overrides: Overrides, group: Group) -> RunConfig:
    """What other processes recorded, made right for these."""
    train, changes = config.train, dict[str, object]()
    if not train.threads:
        changes["threads"] = group.threads() or torch.get_num_threads()
    elif "train.threads" not in overrides and 0 < group.threads() < train.threads:
        changes["threads"] = group.threads()  # together they would be more than the cores
    if "train.device" not in overrides and group.size > 1 and train.device.startswith("cuda:"):
        changes["device"] = "cuda"  # one GPU each, and not the same for all
    return config.model_copy(update={"train": train.model_copy(update=changes)})


def check_same_settings(config: RunConfig, group: Group) -> None:
    """Compares the processes' settings; texts may have other paths on other machines.

    Raises:
        ConfigError: names those that are not rank 0's.
    """

    def problem(first: str) -> ConfigError | None:
        found = differences(from_json(first), config)
        lines = [
            _("{name} is {theirs} in process 0 and {ours} in process {rank}").format(
                name=name, theirs=theirs, ours=ours, rank=group.rank
            )
            for name, (theirs, ours) in found.items()
            if name not in _PLACES
        ]
        return ConfigError(_("; ").join([*lines, _("use the same command")])) if lines else None

    group.compare("settings", as_json(config), problem)


def check_same_overrides(overrides: Overrides, group: Group) -> None:
    """Compares what the processes want to change in a run that is continued.

    Raises:
        ConfigError: names the settings that are not rank 0's.
    """
    ours = json.loads(json.dumps(dict(overrides)))

    def problem(first: dict[str, object]) -> ConfigError | None:
        names = sorted(
            name
            for name in (first.keys() | ours.keys()) - _PLACES
            if (name in first, first.get(name)) != (name in ours, ours.get(name))
        )
        if not names:
            return None
        return ConfigError(
            _(
                "process {rank} changes {names} otherwise than process 0; use the same command"
            ).format(rank=group.rank, names=_(", ").join(names))
        )

    group.compare("overrides", ours, problem)


def shared_dataset(make: Callable[[], Dataset], workspace: Workspace, group: Group) -> Dataset:
    """The text of a run, which one process of each machine prepares.

    Raises:
        CorpusError: it cannot be prepared, or is not the same on every machine.
    """

    def find(fingerprint: str) -> Dataset:
        found = find_prepared(workspace.data_dir, fingerprint)
        if found is None:
            raise CorpusError(
                _(
                    "{folder}/*/{fingerprint}: the text that another process prepared is not here; "
                    "let the processes of a machine use one data folder"
                ).format(folder=workspace.data_dir, fingerprint=fingerprint)
            )
        return found

    dataset = group.once_per_machine(make, lambda made: made.metadata.fingerprint, find)
    fingerprint = dataset.metadata.fingerprint

    def problem(first: str) -> CorpusError | None:
        if first == fingerprint:
            return None
        return CorpusError(
            _(
                "the text here (fingerprint {fingerprint}) is not that of process 0 ({first}); "
                "copy the same files to every machine"
            ).format(fingerprint=fingerprint, first=first)
        )

    group.compare("text", fingerprint, problem)
    return dataset


def told(config: RunConfig, group: Group) -> RunConfig:
    """Rank 0's configuration: what another machine resolves or measures may differ."""
    return from_json(group.first(lambda: as_json(config)))


def as_json(config: RunConfig) -> str:
    """A configuration as text, whatever a user typed into it (half a character, for one)."""
    return json.dumps(config.model_dump())


def from_json(text: str) -> RunConfig:
    """The configuration that `as_json` was given."""
    return RunConfig.model_validate(json.loads(text))
