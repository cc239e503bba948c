"""Weights & Biases, online where the user is logged in and offline otherwise."""

import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import wandb

from minigpt_cli.config.schema import RunConfig

PROJECT = "minigpt"


class WeightsAndBiases:
    """A tracker of `wandb`. Offline runs lie in the run's folder, for `wandb sync`.

    Args:
        run: the run's folder, which keeps the name under which W&B knows it.
        config: the run's settings.
        step: the steps done so far.
    """

    def __init__(self, run: Path, config: RunConfig, step: int) -> None:
        name = run / "wandb-id"
        if step == 0 or not name.is_file():
            name.write_text(uuid4().hex[:12], encoding="ascii")
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=name.read_text(encoding="ascii").strip(),
            name=run.resolve().name,
            dir=str(run.resolve()),
            config=config.model_dump(mode="json"),
            resume="allow",
            mode=mode,
            settings=wandb.Settings(console="off", silent=True),
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        """Adds a row; W&B keeps the first of two with one step."""
        self._run.log(values, step=step)

    def text(self, step: int, name: str, text: str) -> None:
        """Adds a text as preformatted HTML."""
        self._run.log({name: wandb.Html(f"<pre>{_escaped(text)}</pre>")}, step=step)

    def close(self) -> None:
        """Ends W&B's own process."""
        self._run.finish()


def _logged_in() -> bool:
    return bool(os.environ.get("WANDB_API_KEY") or wandb.api.api_key)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
