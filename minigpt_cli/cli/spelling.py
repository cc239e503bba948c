"""What options and settings of other programs are called here, for someone who typed those."""

import difflib
import re
from collections.abc import Mapping, Set

from minigpt_cli.cli.options import SETTING_OPTIONS
from minigpt_cli.language import _

_NAMES: Mapping[str, str] = {
    # of nanoGPT
    "dataset": "--data", "dtype": "train.precision", "eval_iters": "train.eval_tokens",
    "eval_only": "minigpt eval", "gradient_accumulation_steps": "train.grad_accum_steps",
    "lr_decay_iters": "optimizer.decay_fraction", "decay_lr": "optimizer.schedule",
    "beta1": "optimizer.betas", "beta2": "optimizer.betas", "out_dir": "--out",
    "start": "--prompt", "wandb_log": "--log wandb", "wandb_project": "--log wandb",
    "wandb_run_name": "--log wandb", "always_save_checkpoint": "train.save_every_seconds",
    # of others
    "accumulation_steps": "train.grad_accum_steps", "context_length": "model.block_size",
    "d_model": "model.n_embd", "epochs": "--max-iters", "eval_steps": "train.eval_interval",
    "gradient_clip": "optimizer.grad_clip", "hidden_size": "model.n_embd",
    "input": "--data", "lr": "--learning-rate", "max_length": "--max-new-tokens",
    "max_norm": "optimizer.grad_clip", "max_seq_len": "model.block_size",
    "max_steps": "--max-iters", "model": "--checkpoint", "num_epochs": "--max-iters",
    "num_heads": "model.n_head", "num_layers": "model.n_layer", "num_steps": "--max-iters",
    "output": "--out", "output_dir": "--out", "seq_len": "model.block_size",
    "steps": "--max-iters", "tokens": "--max-new-tokens", "warmup_steps": "optimizer.warmup_iters",
}  # fmt: skip
"""A setting, option or command by its name elsewhere, with underscores."""
COMMANDS: Mapping[str, str] = {
    "chat": "generate --interactive", "convert": "export", "evaluate": "eval",
    "finetune": "train --init-from", "prepare": "tokenize", "resume": "train --resume",
    "sample": "generate", "test": "eval",
}  # fmt: skip
"""Commands by their names elsewhere."""
_VALUES: Mapping[str, Mapping[str, str]] = {
    "train.compile": {"True": "on", "true": "on", "False": "off", "false": "off"},
    "train.precision": {
        "bfloat16": "bf16", "float16": "bf16", "fp16": "bf16", "float32": "fp32"
    },
}  # fmt: skip
_OF_ANOTHER_KIND = {
    "beta1", "beta2", "decay_lr", "epochs", "eval_iters", "eval_only", "num_epochs",
    "lr_decay_iters", "always_save_checkpoint", "wandb_log", "wandb_project", "wandb_run_name",
}  # fmt: skip
"""Names whose values mean something else, so that they are not repeated."""
_ASSIGNED = re.compile(r"-{0,2}([A-Za-z][\w.-]*)=(.*)", re.DOTALL)
Commands = Mapping[str, Set[str]]
"""The options of each command, by its name."""


def right_spelling(name: str, value: str, command: str, commands: Commands) -> str:
    """How something is set here that has this name elsewhere, or that is misspelled.

    Args:
        name: as it was typed, with dashes or underscores.
        value: the value that was typed with it, or nothing.
        command: the command that it was typed for.
        commands: what there is.

    Returns:
        For example `--set model.n_layer=4` or `minigpt generate --prompt`; empty for a name that
        means nothing here.
    """
    key = name.strip("-").replace("-", "_").casefold()
    meant, value = _NAMES.get(key, ""), "" if key in _OF_ANOTHER_KIND else value
    meant = meant or _existing(key, command, commands) or _setting(key)
    if not meant or meant.startswith("minigpt "):
        return meant
    value = _VALUES.get(meant, {}).get(value, value)
    own = commands.get(command, frozenset())
    for option in SETTING_OPTIONS.get(meant, (meant,) if meant.startswith("--") else ()):
        if option.split()[0] in own:
            return f"{option} {value}".rstrip()
    if meant.startswith("--"):
        home = next((each for each, has in commands.items() if meant.split()[0] in has), "")
        return f"minigpt {home} {meant} {value}".rstrip() if home else ""
    setting = f"--set {meant}={value or 'VALUE'}"
    return setting if "--set" in own else f"minigpt train {setting}"


def _existing(key: str, command: str, commands: Commands) -> str:
    """An option with this name, of this command or of another one."""
    option = "--" + key.replace("_", "-")
    if option in commands.get(command, ()):
        return option
    if _setting(key, 1.0):
        return ""
    return option if any(option in has for has in commands.values()) else ""


def _setting(key: str, cutoff: float = 0.85) -> str:
    """The full name of the setting with this key, or nearly this one."""
    from minigpt_cli.config.loading import setting_names

    keys = {name.partition(".")[2]: name for name in setting_names()}
    near = difflib.get_close_matches(key, keys, n=1, cutoff=cutoff)
    return keys[near[0]] if near else ""


def assigned(word: str) -> tuple[str, str] | None:
    """Name and value of a word such as `n_layer=4`; None for another one."""
    found = _ASSIGNED.fullmatch(word)
    return None if found is None else (found[1].rpartition(".")[2], found[2])


def of_train(name: str, value: str) -> str:
    """How `minigpt train` sets what has this name elsewhere; empty for an unknown name."""
    options = {option for each in SETTING_OPTIONS.values() for option in each}
    return right_spelling(name, value, "train", {"train": {*options, "--set", "--log"}})


def typed_value(option: str, words: list[str]) -> str:
    """The value that was typed with an option, if any."""
    for word, following in zip(words, [*words[1:], "-"], strict=True):
        if word == option:
            return "" if following.startswith("-") else following
        if word.startswith(f"{option}="):
            return word.removeprefix(f"{option}=")
    return ""


def did_you_mean_option(spelling: str) -> str:
    """What follows a message about a name that has another spelling here."""
    return _("; did you mean {found}?").format(found=spelling)
