"""The types of the fixtures that call the program."""

import subprocess
from collections.abc import Callable

from typer.testing import Result

Minigpt = Callable[..., Result]
Program = Callable[..., "subprocess.CompletedProcess[str]"]
Refused = Callable[..., str]
Misused = Callable[..., str]
