"""minigpt trains: `… train_minigpt classic|modern adamw|muon fp32|bf16|compiled`."""

import sys
from typing import Any

from benchmarks.turns import Turn, serve


def prepare() -> tuple[str, Turn]:
    """Builds the model as `benchmarks.step` does."""
    import torch

    from benchmarks.step import SIZES, Contender
    from minigpt_cli import __version__
    from minigpt_cli.config.schema import ClassicConfig, ModernConfig
    from minigpt_cli.io.memory import keep_freed_memory

    keep_freed_memory()
    family, optimizer, mode = sys.argv[1:]
    config = (ClassicConfig if family == "classic" else ModernConfig).model_validate(SIZES)
    contender = Contender("", config, optimizer, mode)

    def turn(_request: dict[str, Any]) -> dict[str, Any]:
        contender.timed_step()
        return {"seconds": contender.seconds[-1]}

    return f"minigpt {__version__}, torch {torch.__version__}", turn


if __name__ == "__main__":
    serve(prepare)
