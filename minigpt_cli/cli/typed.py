"""What words typed without an option mean: a text, a preset, a run, or a prompt."""

import os
from pathlib import Path

import typer

from minigpt_cli.cli.options import decoded
from minigpt_cli.cli.spelling import assigned, did_you_mean_option, of_train
from minigpt_cli.cli.texts import STDIN
from minigpt_cli.config.presets import preset_names, preset_path, shipped_folder
from minigpt_cli.errors import CheckpointError, ConfigError, did_you_mean
from minigpt_cli.language import _

_RUNS = Path("runs")
_RUN_FILES = ("checkpoint.safetensors", "state.safetensors", "metrics.jsonl")


def is_model(word: str) -> bool:
    """Whether a model has this name: a run, a checkpoint file, or a folder of `transformers`."""
    path = named_run(Path(word))
    if not os.path.lexists(path):  # asked first, because it takes a prompt of any length
        return False
    if path.is_dir():
        from minigpt_cli.interop.hf_folder import is_hf_folder

        return is_hf_folder(path) or any((path / name).exists() for name in _RUN_FILES)
    return path.suffix == ".safetensors" and path.is_file()


def is_text(word: str) -> bool:
    """Whether a known corpus, a text file or a folder with texts has this name."""
    path = Path(word)
    if is_model(word):
        return False
    if not os.path.lexists(path):
        return _is_corpus(word)
    if path.is_dir():
        from minigpt_cli.data.corpora.folders import is_text_name

        return any(is_text_name(p) for p in path.rglob("*"))
    return path.is_file() or _is_corpus(word)


def _is_corpus(word: str) -> bool:
    return word in {path.stem for path in shipped_folder("data").glob("*.toml")}


def named_run(path: Path) -> Path:
    """`runs/NAME` for the bare NAME of a run, where nothing else has that name."""
    run = _RUNS / path
    if path.name != str(path) or not path.name or os.path.lexists(path):
        return path
    return run if os.path.lexists(run) and run.is_dir() else path


def model_to_begin_from(given: Path) -> Path:
    """The model that `--init-from` names.

    Raises:
        CheckpointError: nothing has this name.
    """
    path = named_run(given)
    if path.name and os.path.lexists(path):
        return path
    if str(given) == "resume":
        raise CheckpointError(_("--init-from resume: to continue a run: minigpt train --resume"))
    if str(given) == "scratch":
        raise CheckpointError(_("--init-from scratch: leave it out, which begins from new weights"))
    near = did_you_mean(given)
    raise CheckpointError(
        _("--init-from {name}: no such run, file or folder{near}").format(name=given, near=near)
        + _(
            "; nothing is downloaded: name a run, a checkpoint, or a Hugging Face folder on this "
            "machine (docs/ecosystem.md)"
        )
    )


def resumed_run(words: list[str]) -> Path | None:
    """The run to resume.

    Raises:
        typer.BadParameter: more than one was named.
    """
    if len(words) > 1:
        raise typer.BadParameter(_("--resume continues one run; name one"))
    return named_run(Path(words[0])) if words else None


def preset_and_texts(
    words: list[str], preset: str | None, texts: list[str] | None
) -> tuple[str | None, list[str] | None]:
    """What `minigpt train WORD...` means, and says so in one line.

    Args:
        words: the words typed without an option.
        preset: the value of `--preset`.
        texts: the values of `--data`.

    Raises:
        typer.BadParameter: a word means nothing, or more than one thing.
    """
    from minigpt_cli.cli.console import print_note
    from minigpt_cli.data.corpora.sources import is_pattern
    from minigpt_cli.interop.hf_folder import is_hf_folder

    found: list[str] = []
    for word in words:
        is_preset = word in (*preset_names(), "auto") or word.endswith(".toml")
        if is_model(word) and not is_preset:
            what = _("{word} is a run; to continue it: minigpt train --resume {word}")
            if is_hf_folder(named_run(Path(word))):
                what = _("{word} is a model; to begin from it: minigpt train --init-from {word}")
            raise typer.BadParameter(what.format(word=word))
        if is_preset and os.path.lexists(word) and not word.endswith(".toml"):
            raise typer.BadParameter(
                _(
                    "{word} is a preset and a file here; use --preset {word} or --data {word}"
                ).format(word=word)
            )
        if is_preset and preset is not None:
            raise typer.BadParameter(
                _("{word}: the preset is {preset} already; leave out one").format(
                    word=word, preset=preset
                )
            )
        if is_preset:
            preset = word
            found.append(f"--preset {word}")
        elif _is_corpus(word) or os.path.lexists(word) or word == STDIN or is_pattern(word):
            texts = [*(texts or []), word]
            found.append(f"--data {word}")
        else:
            raise typer.BadParameter(_unknown(word))
    print_note(_("Taken as: {found}").format(found=" ".join(found)))
    return preset, texts


def _unknown(word: str) -> str:
    """What to say of a word that is neither a preset nor a text."""
    if (pair := assigned(word)) and (spelling := of_train(*pair)):
        return _("{word}: no such file, folder or preset{near}").format(
            word=word, near=did_you_mean_option(spelling)
        )
    if near := did_you_mean(word):
        return _("{word}: no such file, folder or preset{near}").format(word=word, near=near)
    if os.sep in word or Path(word).suffix:
        return _("{word}: no such file or folder in {folder}").format(word=word, folder=Path.cwd())
    try:
        preset_path(word)
    except ConfigError as error:
        return _("{error}; a text is a file, a folder or a known corpus").format(error=error)
    raise AssertionError


def model_and_prompt(
    words: list[str], checkpoint: Path | None, prompt: str | None
) -> tuple[Path | None, str | None]:
    """What `minigpt generate WORD...` means: a run if one has the first name, and a prompt.

    Args:
        words: the words typed without an option.
        checkpoint: the value of `--checkpoint`.
        prompt: the value of `--prompt`.

    Raises:
        typer.BadParameter: there are two runs or two prompts, or the word is a text file.
    """
    from minigpt_cli.cli.console import print_note

    found = []
    if checkpoint is None and is_model(words[0]):
        checkpoint, words = Path(words[0]), words[1:]
        found.append(f"--checkpoint {checkpoint}")
    if len(words) == 1 and words[0].endswith((".txt", ".md")) and is_text(words[0]):
        raise typer.BadParameter(
            _(
                "{word} is a file; use --prompt-file {word} (one prompt per line) or "
                "--prompt - < {word}"
            ).format(word=words[0])
        )
    if words and prompt is not None:
        raise typer.BadParameter(
            _("the prompt is given twice: {word} and --prompt").format(word=words[0])
        )
    if words:
        prompt = decoded(" ".join(words))
    if len(words) > 1:  # without quotes
        found.append(f'--prompt "{prompt}"')
    if found:
        print_note(_("Taken as: {found}").format(found=" ".join(found)))
    return checkpoint, prompt


def models_and_texts(words: list[Path], texts: list[str]) -> tuple[list[Path], list[str]]:
    """What `minigpt eval WORD...` means: models, and texts to measure them on."""
    from minigpt_cli.cli.console import print_note

    more = [str(word) for word in words if is_text(str(word))]
    if more:
        print_note(_("Taken as: {found}").format(found=" ".join(f"--data {word}" for word in more)))
    return [word for word in words if str(word) not in more], [*texts, *more]
