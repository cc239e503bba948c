"""From what the user typed to a run or a loaded model: the only way the commands get one."""

import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minigpt_cli.cli.typed import named_run
from minigpt_cli.config.choices import Precision, Quantization
from minigpt_cli.language import _

if TYPE_CHECKING:
    from minigpt_cli.model.gpt import GPT
    from minigpt_cli.runs.checkpoint import Checkpoint
    from minigpt_cli.runs.folder import RunFolder

CheckpointPath = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        "-c",
        metavar="RUN|FILE",
        help="A run folder (its best model), a checkpoint, or a state (the last model).",
        show_default="the newest run",
    ),
]
RunPath = Annotated[
    Path | None, typer.Argument(metavar="RUN", help="A run folder. Default: the newest run.")
]


_LOOKED_AT = 10
"""Runs at most that are compared with the newest."""
_FEW_TOKENS, _ENOUGH_SECONDS = 32, 0.05
_LARGE = 50_000_000
"""Parameters from which all threads are used without asking: they rarely wait for each other, and
asking would be felt."""
_NEGLIGIBLE_SECONDS = 0.002
"""Of reading a few tokens with one thread; a second one then saves less than 0.1 ms of a token, and
takes 50 ms or more to start."""


@dataclass(frozen=True)
class Loaded:
    """A checkpoint and the file it was read from."""

    path: Path
    checkpoint: "Checkpoint"

    @property
    def name(self) -> str:
        """What titles call it: its run's folder (or its file) and its step."""
        return _("{path}, step {step:,}").format(
            path=short_name(self.path), step=self.checkpoint.metadata.step
        )


def load(
    given: Path | None,
    device: str = "cpu",
    precision: Precision = "fp32",
    quantize: Quantization | None = None,
) -> Loaded:
    """Loads the model the user means.

    Args:
        given: a run folder, a checkpoint or a folder of Hugging Face's transformers; None for the
            newest run.
        device: where to compute; with `quantize`, `auto` is the CPU.
        precision: of the computation; ignored with `quantize`.
        quantize: round the matrices to 8 bits.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
        InteropError: a folder of transformers, a pickle or adapters, which cannot be opened.
        ConfigError: this machine does not have the device, or it cannot quantize.
    """
    from minigpt_cli.device import choose_threads, one_thread, pick_device, pick_dtype
    from minigpt_cli.interop.hf_folder import check_openable, is_hf_folder
    from minigpt_cli.model.quantization import quantize_int8
    from minigpt_cli.training.opening import open_model

    target = pick_device("cpu" if quantize and device == "auto" else device)
    folder = None if given is None else named_run(given)
    if folder is not None and is_hf_folder(folder):
        path = folder
    else:
        if folder is not None:
            check_openable(folder)
        path = checkpoint_path(given)
    with one_thread() if _is_small(path) else nullcontext():
        checkpoint = open_model(path, target)
    if quantize == "int8":
        quantize_int8(checkpoint.model)
    else:
        checkpoint.model.compute_dtype = pick_dtype(precision, target)
    if target.type == "cpu" and sum(p.numel() for p in checkpoint.model.parameters()) < _LARGE:
        choose_threads(
            partial(_reading_seconds, checkpoint.model), _ENOUGH_SECONDS, _NEGLIGIBLE_SECONDS
        )
    return Loaded(path, checkpoint)


def _is_small(path: Path) -> bool:
    return path.is_file() and path.stat().st_size < _LARGE * 4  # bytes of a weight


def _reading_seconds(model: "GPT") -> float:
    """How long the model takes to read a few tokens."""
    import torch

    tokens = torch.zeros(1, min(_FEW_TOKENS, model.config.block_size), dtype=torch.long)
    started = time.perf_counter()
    with torch.inference_mode(), model.evaluating():
        model(tokens)
    return time.perf_counter() - started


def checkpoint_path(given: Path | None) -> Path:
    """The checkpoint file the user means; prints which one when it is chosen for them."""
    from minigpt_cli.cli.console import print_note
    from minigpt_cli.runs.folder import find_checkpoint

    meant = None if given is None else named_run(given)
    path, chosen = find_checkpoint(meant)
    if chosen:
        print_note(_("Using {path}").format(path=path) + _other_runs(path.parent))
    elif meant != given:
        print_note(_("Using {path}").format(path=path))
    return path


def _other_runs(newest: Path) -> str:
    """What else there is, to follow the name of the newest run, which was chosen."""
    from minigpt_cli.runs.folder import METRICS, RUNS

    if len([*islice(RUNS.glob(f"*/{METRICS}"), 2)]) < 2:
        return ""  # without reading its log
    from minigpt_cli.inspection.run_list import list_runs

    runs = [run for run in islice(list_runs(), _LOOKED_AT) if run.parameters]
    mine = next((run for run in runs if run.path == newest), None)
    others = [run for run in runs if run.path != newest]
    if mine is None or not others:
        return ""
    largest = max(others, key=lambda run: (run.is_finished, run.parameters or 0))
    doubts = []
    if newest.name.split("-")[0] == "tiny" or (mine.parameters or 0) * 10 < (
        largest.parameters or 0
    ):
        doubts.append(
            _("a tiny model of {parameters:,} parameters").format(parameters=mine.parameters)
        )
    if not mine.is_finished:
        doubts.append(
            _("unfinished (step {last_step:,} of {max_iters})").format(
                last_step=mine.last_step, max_iters=f"{mine.max_iters:,}" if mine.max_iters else "?"
            )
        )
    if not doubts:
        return _(", the newest; {number} more: minigpt inspect runs").format(number=len(others))
    state = _("finished") if largest.is_finished else _("unfinished")
    return _(
        ", the newest: {doubts}; another is {path} ({parameters:,} parameters, {state}), "
        "and minigpt inspect runs lists all"
    ).format(
        doubts=_(" and ").join(doubts),
        path=largest.path,
        parameters=largest.parameters,
        state=state,
    )


def run_folder(given: Path | None) -> Path:
    """The run folder the user means; prints which one when it is chosen for them."""
    from minigpt_cli.cli.console import print_note
    from minigpt_cli.errors import CheckpointError, did_you_mean
    from minigpt_cli.runs.folder import METRICS, is_folder, newest

    if given is None:
        folder = newest(METRICS).path
        print_note(_("Using {path}").format(path=folder))
        return folder
    folder = named_run(given)
    if not is_folder(folder):
        raise CheckpointError(
            _("{path}: not a run folder; pass one created by minigpt train").format(path=given)
            + ("" if given.exists() else did_you_mean(given))
        )
    if folder != given:
        print_note(_("Using {path}").format(path=folder))
    return folder


def run_to_resume(changed: set[str]) -> "RunFolder":
    """The run to resume where none is named: the newest unfinished one, and says so.

    Where all are finished, or more steps are asked for, it is the newest.

    Args:
        changed: the settings that are to be changed, by full name.

    Raises:
        CheckpointError: no run was found.
    """
    from minigpt_cli.cli.console import print_note
    from minigpt_cli.inspection.run_list import list_runs
    from minigpt_cli.runs.folder import STATE, RunFolder, newest

    last = newest(STATE)
    if changed & {"train.max_iters", "train.patience"}:
        return last
    runs = [run for run in list_runs() if RunFolder(run.path).state.exists()]
    unfinished = next((run.path for run in runs if not run.is_finished), last.path)
    if unfinished == last.path or not any(run.path == last.path for run in runs):
        return last
    print_note(
        _("The newest run, {last}, is finished; the newest unfinished one is {path}").format(
            last=last.path, path=unfinished
        )
    )
    return RunFolder(unfinished)


def short_name(checkpoint: Path) -> str:
    """A checkpoint's run folder; the file itself when it is not inside one."""
    from minigpt_cli.runs.folder import CHECKPOINT

    is_run = checkpoint.name == CHECKPOINT and checkpoint.parent.name
    return str(checkpoint.parent if is_run else checkpoint)
