"""Every setting with its default, its limits and its line, read from `schema.py` itself."""

import ast
import inspect
import json
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from minigpt_cli.config import schema
from minigpt_cli.language import mark

_TOO_LARGE_TO_MATTER = 2**31


@dataclass(frozen=True)
class Setting:
    """One setting of a run."""

    name: str
    """Its full name, as in `train.max_iters`."""
    default: str
    """As in a preset; empty where the default depends on other settings."""
    limits: str
    """What it may be, as in `above 0, below 2147483648` or `auto, on, off`."""
    text: str
    """What it does, in one line."""
    family: str | None = None
    """The only model family that has it."""


_BOUNDS = (
    ("gt", mark("above")), ("ge", mark("from")), ("lt", mark("below")), ("le", mark("up to"))
)  # fmt: skip


def list_settings() -> list[Setting]:
    """Every setting, in the order of a run's configuration."""
    families: dict[str, type[BaseModel]] = {
        "classic": schema.ClassicConfig,
        "modern": schema.ModernConfig,
    }
    modern: type[BaseModel] = schema.ModernConfig
    shared = set(schema.ClassicConfig.model_fields) & set(schema.ModernConfig.model_fields)
    found = [
        Setting("model.family", '"modern"', "classic, modern", mark("Which family of models."))
    ]
    found += [
        _setting("model", name, modern)
        for name in modern.model_fields if name in shared - {"family"}
    ]  # fmt: skip
    for family, table in families.items():
        found += [
            _setting("model", name, table, family)
            for name in table.model_fields if name not in shared
        ]  # fmt: skip
    tables: dict[str, type[BaseModel]] = {
        "data": schema.DataConfig, "optimizer": schema.OptimizerConfig,
        "train": schema.TrainConfig, "distributed": schema.DistributedConfig,
        "lora": schema.LoraConfig,
    }  # fmt: skip
    for section, table in tables.items():
        found += [_setting(section, name, table) for name in table.model_fields]
    return found


def _setting(section: str, name: str, table: type[BaseModel], family: str | None = None) -> Setting:
    field = table.model_fields[name]
    unknown = field.default is None or field.default is PydanticUndefined
    default = "" if unknown else schema.toml_value(field.default)
    limits = _limits(field.annotation, field.metadata)
    return Setting(f"{section}.{name}", default, limits, _docstrings(table)[name], family)


def _limits(annotation: Any, metadata: list[Any]) -> str:
    words = []
    for part in metadata:
        words += [
            f"{word} {getattr(part, bound)}"
            for bound, word in _BOUNDS
            if getattr(part, bound, None) not in (None, _TOO_LARGE_TO_MATTER)
        ]
        words += [w for w in [_limits(None, getattr(part, "metadata", []))] if w]
    if annotation is bool:
        words.append("true, false")
    if get_origin(annotation) is Literal:
        words += map(str, get_args(annotation))
    elif metadata == [] or words == []:
        for inner in get_args(annotation):
            if inner is not type(None) and (limits := _limits(inner, _metadata(inner))):
                words.append(limits)
    return ", ".join(dict.fromkeys(words))


def _metadata(annotation: Any) -> list[Any]:
    return list(getattr(annotation, "__metadata__", ()))


def _docstrings(table: type[BaseModel]) -> dict[str, str]:
    """The text below each field, of a table and of what it inherits from."""
    found: dict[str, str] = {}
    for cls in reversed(table.__mro__):
        if not cls.__module__.startswith("minigpt_cli"):
            continue
        (body,) = ast.parse(inspect.getsource(cls)).body
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
                if is_text:
                    found[field.target.id] = " ".join(str(text.value.value).split())  # type: ignore[attr-defined]
    return found


def names_for_completion(incomplete: str) -> list[str]:
    """Full names that begin like this, ready for their value; choices where a name is complete."""
    name, equals, value = incomplete.partition("=")
    settings = {setting.name: setting for setting in list_settings()}
    if not equals:
        return [f"{other}=" for other in settings if other.startswith(name)]
    choices = settings[name].limits.split(", ") if name in settings else []
    words = [choice for choice in choices if choice.isidentifier() and choice.startswith(value)]
    return [f"{name}={word}" for word in words]


def as_json(settings: list[Setting]) -> list[dict[str, Any]]:
    """The settings as JSON values, with their defaults as values."""
    return [
        {**vars(setting), "default": json.loads(setting.default) if setting.default else None}
        for setting in settings
    ]
