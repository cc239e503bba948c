"""What the user asked `minigpt export` for, and what every target does with it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from minigpt_cli.errors import ConfigError
from minigpt_cli.language import _

if TYPE_CHECKING:
    from minigpt_cli.cli.loading import Loaded

ExportDtype = Literal["fp32", "bf16", "fp16", "int8", "q8_0"]


@dataclass(frozen=True)
class Request:
    """One model, and where it goes."""

    source: Path | None
    """A run folder or a checkpoint; None stands for the newest run."""
    target: Path
    dtype: ExportDtype | None = None
    """Of the weights; None leaves it to the target."""
    force: bool = False
    title: str | None = None
    prompt: str | None = None
    inspect: bool = True

    def check_dtype(self, *supported: ExportDtype) -> None:
        """Raises unless the target can hold weights of this kind.

        Raises:
            typer.BadParameter: it cannot.
        """
        if self.dtype is not None and self.dtype not in supported:
            raise typer.BadParameter(
                _("--dtype {dtype}: use {supported}").format(
                    dtype=self.dtype, supported=_(" or ").join(supported)
                )
            )

    def check_target(self) -> None:
        """Raises if the target exists, unless with `--force`.

        Raises:
            ConfigError: it exists.
        """
        if os.path.lexists(self.target) and not self.force:
            raise ConfigError(
                _("{target}: already exists; add --force to overwrite it").format(
                    target=self.target
                )
            )

    def load(self) -> "Loaded":
        """The model, and the file it is in.

        Raises:
            CheckpointError: there is none, or it is damaged or not one of ours.
        """
        from minigpt_cli.cli.loading import load

        return load(self.source)
