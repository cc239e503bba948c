"""Combines a preset's TOML and overrides into one validated `RunConfig`.

A preset contains only what differs from the defaults in `schema.py`. Unknown keys are errors, and
all problems are reported at once, each with its table, its key and the fix.
"""

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import tomli
from pydantic import BaseModel, ValidationError

from minigpt_cli.config.presets import preset_path
from minigpt_cli.config.schema import (
    ClassicConfig,
    DataConfig,
    DistributedConfig,
    LoraConfig,
    ModernConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
)
from minigpt_cli.errors import ConfigError, about, reraise_as
from minigpt_cli.io.regular import read_bounded
from minigpt_cli.language import _, mark

Overrides = Mapping[str, object]
_MOST_BYTES = 1 << 20
"""Bytes of a preset; a device such as /dev/zero never ends."""

_FAMILIES: dict[str, type[BaseModel]] = {"classic": ClassicConfig, "modern": ModernConfig}
_TABLES: dict[str, type[BaseModel]] = {
    "data": DataConfig, "optimizer": OptimizerConfig, "train": TrainConfig,
    "distributed": DistributedConfig, "lora": LoraConfig,
}  # fmt: skip


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file.

    Raises:
        ConfigError: the file is missing, unreadable, not UTF-8, or not TOML (with line and column).
    """
    with reraise_as(ConfigError, path, "read", missing=_("no such file"), also=(ValueError,)):
        data = read_bounded(path, _MOST_BYTES)
    try:
        return tomli.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(
            _("{path}: not UTF-8 at byte {start}; save it as UTF-8").format(
                path=path, start=error.start
            )
        ) from None
    except (ValueError, RecursionError) as error:  # also endless digits or brackets
        raise ConfigError(
            _("{path}: not valid TOML: {error}").format(path=path, error=error)
        ) from None


def load_run_config(preset: str, overrides: Overrides | None = None) -> RunConfig:
    """Reads a preset by name or path and applies overrides.

    Args:
        preset: a shipped preset's name, or the path of a TOML file.
        overrides: values by the full name of their setting, as in `{"train.max_iters": 500}`.

    Raises:
        ConfigError: one line with every problem found.
    """
    path = preset_path(preset)
    return resolve(read_toml(path), overrides or {}, source=str(path))


def parse_override(text: str) -> tuple[str, object]:
    """The setting's full name and the value in `section.key=value`.

    The section may be left out. The value is read as TOML, or taken as a string where it is not
    TOML; a whole number may be written 1e3.

    Raises:
        ConfigError: the text has another form, or a name without a section is not a setting.
    """
    name, equals, raw = (part.strip() for part in text.partition("="))
    if not (equals and name) or name.startswith(".") or name.endswith("."):
        raise ConfigError(
            _("{text}: not section.key=value, as in train.max_iters=500").format(text=text)
        )
    if "." not in name:
        name = _full_name(name)
    if raw in ("True", "False"):
        return name, raw == "True"
    try:
        value = tomli.loads(f"value = {raw}")["value"]
    except (ValueError, RecursionError):
        return name, raw
    if isinstance(value, float) and "e" in raw.lower() and value.is_integer() and _is_whole(name):
        return name, int(value)
    return name, value


def with_full_names(overrides: Overrides) -> Overrides:
    """Overrides by the full name of their setting, of which the section may have been left out.

    Raises:
        ConfigError: a name without a section is not a setting.
    """
    return {name if "." in name else _full_name(name): v for name, v in overrides.items()}


def setting_names() -> dict[str, list[Any]]:
    """Every setting's full name, with its type in each table that has it."""
    tables = [*_TABLES.items(), *(("model", family) for family in _FAMILIES.values())]
    found: dict[str, list[Any]] = {}
    for section, table in tables:
        for key, field in table.model_fields.items():
            found.setdefault(f"{section}.{key}", []).append(field.annotation)
    return found


def _full_name(key: str) -> str:
    """The full name of a setting that was named without its section.

    Raises:
        ConfigError: no setting, or more than one, has this key.
    """
    names = setting_names()
    found = [name for name in names if name.partition(".")[2] == key]
    if len(found) == 1:
        return found[0]
    if not found:
        keys = [name.partition(".")[2] for name in names]
        close = difflib.get_close_matches(key, keys, n=2)
        found = [name for name in names if name.partition(".")[2] in close]
    hint = (
        _("did you mean {found}?").format(found=_(" or ").join(found))
        if found
        else _("write section.key=value")
    )
    raise ConfigError(_("unknown setting {key}; {hint}").format(key=key, hint=hint))


def _is_whole(name: str) -> bool:
    """Whether a setting takes whole numbers only."""
    kinds = {part for kind in setting_names().get(name, ()) for part in _parts(kind)}
    return int in kinds and float not in kinds


def _parts(kind: Any) -> Iterator[Any]:
    yield kind
    for part in get_args(kind):
        yield from _parts(part)


def resolve(tables: dict[str, Any], overrides: Overrides, source: str) -> RunConfig:
    """Validates the tables of a preset with overrides applied to them.

    Args:
        tables: what `read_toml` returns; left as they are.
        overrides: values by the full name of their setting.
        source: the preset's name for messages.

    Raises:
        ConfigError: one line with every problem found.
    """
    tables = {
        name: dict(table) if isinstance(table, dict) else table for name, table in tables.items()
    }
    changed = set()
    for name, value in overrides.items():
        section, _dot, key = name.partition(".")
        target = tables.setdefault(section, {})
        if isinstance(target, dict):
            target[key] = value
            changed.add(name)
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
    raise ConfigError(
        _("; ").join(([about(source, _("; ").join(inside))] if inside else []) + outside)
    )


def _between_fields(tables: dict[str, Any], errors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Violations of the rules that involve several fields.

    Pydantic checks these rules only when every field is valid by itself. So that they are reported
    together with invalid fields, the tables are validated again without those.
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
    """Table and key, without the model family that pydantic inserts between them."""
    location = [str(part) for part in problem["loc"]]
    if location[0] == "model" and len(location) > 1:
        del location[1]
    return tuple(location)


def plain_problem(problem: Mapping[str, Any]) -> str:
    """What pydantic says of a value, without its name for the kind of error."""
    return str(problem["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")


def _describe(problem: dict[str, Any], changed: set[str]) -> tuple[bool, str]:
    """One pydantic error as `table.key = value: reason`, and whether an override caused it."""
    location = _location(problem)
    table = _TABLES.get(location[0], RunConfig)
    if location[0] == "model" and len(problem["loc"]) > 1:
        table = _FAMILIES[problem["loc"][1]]
    name = ".".join(location[:2])
    item = "".join(f"[{part}]" for part in location[2:])
    value = problem["input"]
    if problem["type"] == "extra_forbidden":
        text = _("unknown setting {name}{nearest}").format(
            name=name, nearest=_nearest(location[-1], table)
        )
    elif problem["type"] == "value_error":
        reason = str(problem["ctx"]["error"])  # about a whole table, it names the keys itself
        text = (
            reason
            if len(location) == 1
            else _("{name} = {value}: {reason}").format(
                name=name, value=_shown(value), reason=reason
            )
        )
    elif problem["type"] in ("model_type", "dict_type", "model_attributes_type"):
        text = _("{name} must be a table, written [{name}]").format(name=name)
    elif problem["type"] == "union_tag_invalid":
        text = _('model.family = {value}: must be "classic" or "modern"').format(
            value=_shown(value["family"])
        )
    elif problem["type"] == "missing":
        text = _("{name} = {value}: too few values").format(name=name, value=_shown(value))
    else:
        text = _("{name} = {value}: {reason}").format(
            name=name + item, value=_shown(value), reason=_reason(problem)
        )
    is_override = name in changed or any(part.startswith(f"{name}.") for part in changed)
    return is_override, text


_REASONS = {
    "greater_than": mark("must be greater than {gt}"),
    "greater_than_equal": mark("must be greater than or equal to {ge}"),
    "less_than": mark("must be less than {lt}"),
    "less_than_equal": mark("must be less than or equal to {le}"),
    "literal_error": mark("must be {expected}"),
    "int_type": mark("must be a valid integer"),
    "int_parsing": mark("must be a valid integer"),
    "int_from_float": mark("must be a valid integer"),
    "float_type": mark("must be a valid number"),
    "float_parsing": mark("must be a valid number"),
    "bool_type": mark("must be a valid boolean"),
    "bool_parsing": mark("must be a valid boolean"),
    "string_type": mark("must be a valid string"),
    "finite_number": mark("must be a finite number"),
}
"""What is wrong with a value, by pydantic's type of error; other reasons are pydantic's own."""


def _reason(problem: dict[str, Any]) -> str:
    if known := _REASONS.get(problem["type"]):
        return _(known).format(**problem.get("ctx", {}))
    reason = plain_problem(problem).replace("Input should be", "must be")
    return reason[0].lower() + reason[1:]


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _in_tables(key: str) -> str:
    """The full name of a setting that was written outside its table; empty if it is not one."""
    keys = {name.partition(".")[2]: name for name in setting_names()}
    close = difflib.get_close_matches(key, keys, n=1, cutoff=0.85)
    return keys[close[0]] if close else ""


def _nearest(key: str, table: type[BaseModel]) -> str:
    """The name that an unknown key may have been meant as, or all names that its table allows."""
    known = sorted(table.model_fields)
    if table is RunConfig and (found := _in_tables(key)):
        return _("; did you mean {name}, in [{section}]?").format(
            name=found, section=found.partition(".")[0]
        )
    close = difflib.get_close_matches(key, known, n=1)
    hint = (
        _("did you mean {found}?").format(found=close[0])
        if close
        else _("allowed: {known}").format(known=", ".join(known))
    )
    families = [name for name, family in _FAMILIES.items() if key in family.model_fields]
    if table in _FAMILIES.values() and families:
        return _("; it belongs to model.family = {family}; {hint}").format(
            family=_shown(families[0]), hint=hint
        )
    return _("; {hint}").format(hint=hint)
