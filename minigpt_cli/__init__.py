"""Train a small GPT on your own text, write with it, measure it and look inside it.

The public API, imported lazily so that the command line starts quickly.
"""

from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minigpt_cli.api import evaluate, load
    from minigpt_cli.config.schema import RunConfig
    from minigpt_cli.generation.sampling import Sampling
    from minigpt_cli.generation.text import generate
    from minigpt_cli.training.reporter import Reporter
    from minigpt_cli.training.setup import train

__version__: str
__all__ = ["Reporter", "RunConfig", "Sampling", "evaluate", "generate", "load", "train"]


def __getattr__(name: str) -> Any:
    if name == "__version__":  # looked up only when asked for: a twentieth of a second at the start
        from importlib.metadata import version

        return version("minigpt-cli")
    home: ModuleType
    if name in ("evaluate", "load"):
        from minigpt_cli import api as home
    elif name == "generate":
        from minigpt_cli.generation import text as home
    elif name == "train":
        from minigpt_cli.training import setup as home
    elif name == "Reporter":
        from minigpt_cli.training import reporter as home
    elif name == "Sampling":
        from minigpt_cli.generation import sampling as home
    elif name == "RunConfig":
        from minigpt_cli.config import schema as home
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(home, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
