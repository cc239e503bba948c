"""Finds the files that ship with the package: presets and dataset cards.

Imports nothing heavy, so that `--help` and shell completion stay fast.
"""

import difflib
from pathlib import Path

from minigpt_cli.errors import ConfigError, did_you_mean
from minigpt_cli.language import _

_OTHER_FORMATS = (".yaml", ".yml", ".json", ".py", ".ini", ".cfg")


def shipped_folder(name: str) -> Path:
    """`configs` or `data`: inside the package in a wheel, next to it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "shipped" / name
    return inside if inside.is_dir() else package.parent / name


def preset_names() -> list[str]:
    """The shipped presets, sorted."""
    return sorted(path.stem for path in shipped_folder("configs").glob("*.toml"))


def preset_path(preset: str) -> Path:
    """The file of a preset that is given by name or by path.

    Raises:
        ConfigError: no shipped preset has that name; similar names are offered.
    """
    names = preset_names()
    is_path = "/" in preset or "\\" in preset
    if preset.endswith(".toml") or (is_path and Path(preset).suffix not in _OTHER_FORMATS):
        return Path(preset)
    if preset in names:
        return shipped_folder("configs") / f"{preset}.toml"
    if (other := Path(preset)).suffix.lower() in _OTHER_FORMATS:
        raise ConfigError(
            _(
                "{preset}: presets are TOML files, as in {path} with the lines "
                "[train] and max_iters = 500"
            ).format(preset=preset, path=other.with_suffix(".toml"))
        )
    close = difflib.get_close_matches(preset.lower(), names, n=2)
    if not close and (files := did_you_mean(f"{preset}.toml")):
        raise ConfigError(_("unknown preset {preset}").format(preset=preset) + files)
    hint = (
        _("did you mean {found}?").format(found=_(" or ").join(close))
        if close
        else _("available: auto, {names}").format(names=", ".join(names))
    )
    raise ConfigError(_("unknown preset {preset}; {hint}").format(preset=preset, hint=hint))
