"""A preset's TOML and its overrides become one validated `RunConfig`.

A preset states only what differs from the defaults in `config.py`. Unknown keys are refused, and
every problem of a file is reported at once, each with its table, its key and what would do.
"""

import difflib
import json
from pathlib import Path
from typing import Any

import tomli
from pydantic import BaseModel, ValidationError

from minigpt_cli.config.presets import preset_path
from minigpt_cli.config.schema import (
    ClassicConfig,
    DataConfig,
    ModernConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
)
from minigpt_cli.errors import ConfigError, reraise_as

_FAMILIES: dict[str, type[BaseModel]] = {"classic": ClassicConfig, "modern": ModernConfig}
_TABLES: dict[str, type[BaseModel]] = {
    "data": DataConfig, "optimizer": OptimizerConfig, "train": TrainConfig
}  # fmt: skip


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file.

    Raises:
        ConfigError: it is missing, unreadable, not UTF-8, or not TOML (with line and column).
    """
    with reraise_as(ConfigError, path, "read", missing="no such file"):
        data = path.read_bytes()
    try:
        return tomli.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except (ValueError, RecursionError) as error:  # also endless digits or brackets
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def load_run_config(preset: str, overrides: list[str] | None = None) -> RunConfig:
    """Reads a preset by name or path and applies overrides.

    Args:
        preset: a shipped preset's name, or the path of a TOML file.
        overrides: `section.key=value` each; the value is TOML, or else taken as a string.

    Raises:
        ConfigError: one line with every problem found.
    """
    path = preset_path(preset)
    return resolve(read_toml(path), overrides or [], source=str(path))


def resolve(tables: dict[str, Any], overrides: list[str], source: str) -> RunConfig:
    """Validates the tables of a preset with overrides laid over them."""
    tables = {
        name: dict(table) if isinstance(table, dict) else table for name, table in tables.items()
    }
    changed = set()
    for override in overrides:
        section, key, value = _parse_override(override)
        target = tables.setdefault(section, {})
        if isinstance(target, dict):
            target[key] = value
            changed.add(f"{section}.{key}")
    model = tables.setdefault("model", {})
    if isinstance(model, dict):
        model.setdefault("family", "modern")
    try:
        return RunConfig.model_validate(tables)
    except ValidationError as error:
        errors = [dict(problem) for problem in error.errors()]
    errors += _between_fields(tables, errors)
    problems = [_describe(problem, changed) for problem in errors]
    inside = [text for is_override, text in problems if not is_override]
    outside = [text for is_override, text in problems if is_override]
    raise ConfigError("; ".join(([f"{source}: {'; '.join(inside)}"] if inside else []) + outside))


def _between_fields(tables: dict[str, Any], errors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rules that join several fields, which wait until each field is right by itself.

    So the fields that are not are left out, and what then goes against a rule is reported too.
    """
    wrong = {_location(problem)[:2] for problem in errors}
    kept = {
        section: {key: value for key, value in table.items() if (section, key) not in wrong}
        for section, table in tables.items()
        if isinstance(table, dict) and (section,) not in wrong
    }
    try:
        RunConfig.model_validate(kept)
    except ValidationError as error:
        return [
            dict(problem)
            for problem in error.errors()
            if problem["type"] == "value_error" and _location(dict(problem))[:2] not in wrong
        ]
    return []


def _location(problem: dict[str, Any]) -> tuple[str, ...]:
    """Table and key, without the discriminator's own step, which no preset names."""
    location = [str(part) for part in problem["loc"]]
    if location[0] == "model" and len(location) > 1:
        del location[1]
    return tuple(location)


def _parse_override(text: str) -> tuple[str, str, Any]:
    name, equals, raw = text.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and section and key):
        raise ConfigError(
            f"--set {text}: is not section.key=value; for example --set train.max_iters=500"
        )
    if section not in RunConfig.model_fields:
        known = ", ".join(RunConfig.model_fields)
        raise ConfigError(f"--set {text}: no table named {section}; there are {known}")
    try:
        return section, key, tomli.loads(f"value = {raw.strip()}")["value"]
    except (ValueError, RecursionError):
        return section, key, raw.strip()


def _describe(problem: dict[str, Any], changed: set[str]) -> tuple[bool, str]:
    """One pydantic error as `table.key = value …`, and whether an override caused it."""
    location = _location(problem)
    table = _TABLES.get(location[0], RunConfig)
    if location[0] == "model" and len(problem["loc"]) > 1:
        table = _FAMILIES[problem["loc"][1]]
    name = ".".join(location[:2])
    item = "".join(f"[{part}]" for part in location[2:])
    value = problem["input"]
    if problem["type"] == "extra_forbidden":
        text = f"{name} is no setting{_nearest(location[-1], table)}"
    elif problem["type"] == "value_error":
        reason = str(problem["ctx"]["error"])  # of a whole table, it names the keys itself
        text = reason if len(location) == 1 else f"{name} = {_shown(value)}: {reason}"
    elif problem["type"] in ("model_type", "dict_type", "model_attributes_type"):
        text = f"{name} must be a table, written [{name}]"
    elif problem["type"] == "union_tag_invalid":
        text = f'model.family = {_shown(value["family"])}: must be "classic" or "modern"'
    elif problem["type"] == "missing":
        text = f"{name} = {_shown(value)}: has too few values"
    else:
        text = f"{name}{item} = {_shown(value)}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
    is_override = name in changed or any(part.startswith(f"{name}.") for part in changed)
    return is_override, text


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _nearest(key: str, table: type[BaseModel]) -> str:
    """The name an unknown key may have meant, or all that its table allows."""
    known = sorted(table.model_fields)
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"allowed: {', '.join(known)}"
    families = [name for name, family in _FAMILIES.items() if key in family.model_fields]
    if table in _FAMILIES.values() and families:
        return f" of this family; it belongs to model.family = {_shown(families[0])}; {hint}"
    return f"; {hint}"
