"""Train a small GPT on your own text, write with it, measure it and look inside it.

The public API, imported lazily so that the command line starts quickly.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minigpt_cli.api import evaluate, load
    from minigpt_cli.config.schema import RunConfig
    from minigpt_cli.generation.sampling import Sampling
    from minigpt_cli.generation.text import generate
    from minigpt_cli.training.setup import train

__version__ = version("minigpt-cli")
__all__ = ["RunConfig", "Sampling", "evaluate", "generate", "load", "train"]

_HOMES = {
    "RunConfig": "minigpt_cli.config.schema",
    "Sampling": "minigpt_cli.generation.sampling",
    "evaluate": "minigpt_cli.api",
    "generate": "minigpt_cli.generation.text",
    "load": "minigpt_cli.api",
    "train": "minigpt_cli.training.setup",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
