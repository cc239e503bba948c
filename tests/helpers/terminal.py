"""A terminal of 80 columns and 24 lines in which tests type, and whose screen they read."""

import contextlib
import re
import sys
import time
from pathlib import Path
from types import TracebackType

import pexpect
import pyte

_PROMPT = "ready> "
_PATIENCE = 300.0
"""Seconds after which a command counts as hanging."""


class Terminal:
    """A shell in a folder, with `minigpt` on its path and nothing of the developer's settings.

    Args:
        folder: where the shell starts; also its home.
        env: variables beyond those that every shell has.
    """

    def __init__(self, folder: Path, columns: int = 80, **env: str) -> None:
        programs = folder / ".programs"
        programs.mkdir(exist_ok=True)
        minigpt = programs / "minigpt"
        minigpt.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m minigpt_cli "$@"\n')
        minigpt.chmod(0o755)
        self.folder, self.columns = folder, columns
        self._screen = pyte.HistoryScreen(columns, 24, history=10_000)
        self._stream = pyte.ByteStream(self._screen)
        self._shell = pexpect.spawn(
            "/bin/sh", ["-i"], cwd=str(folder), dimensions=(24, columns), timeout=_PATIENCE,
            env={
                "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin", "HOME": str(folder),
                "PS1": _PROMPT, "TERM": "xterm-256color", "LANG": "C.UTF-8",
                "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1", **env,
            },
        )  # fmt: skip
        self._wait()

    def run(self, line: str) -> str:
        """Types a line, waits until the shell is ready again, and returns what appeared."""
        self.start(line)
        return self.finish()

    def start(self, line: str) -> None:
        """Types a line and does not wait."""
        self._screen.reset()
        self._screen.history.top.clear()
        self.send(f"{line}\n")

    def send(self, keys: str) -> None:
        """Presses keys."""
        self._shell.send(keys.encode())

    def wait_for(self, pattern: str) -> str:
        """Waits until the screen shows a pattern."""
        end = time.monotonic() + _PATIENCE
        while not re.search(pattern, self.shown):
            assert time.monotonic() < end, self.shown
            self._read()
        return self.shown

    def finish(self) -> str:
        """Waits until the shell is ready again, and returns what appeared."""
        self._wait()
        return self.shown.removesuffix(_PROMPT.strip()).rstrip("\n")

    @property
    def shown(self) -> str:
        """What was shown since the last line was typed, scrolled away or not."""
        above = [self._text(line) for line in self._screen.history.top]
        return "\n".join([*above, *(line.rstrip() for line in self._screen.display)]).rstrip("\n")

    def _text(self, line: dict[int, pyte.screens.Char]) -> str:
        return "".join(line[x].data for x in range(self.columns)).rstrip()

    def _wait(self) -> None:
        end = time.monotonic() + _PATIENCE
        while not self.shown.endswith(f"\n{_PROMPT.strip()}") and self.shown != _PROMPT.strip():
            assert time.monotonic() < end, self.shown
            self._read()

    def _read(self) -> None:
        with contextlib.suppress(pexpect.TIMEOUT):
            self._stream.feed(self._shell.read_nonblocking(1 << 16, timeout=0.2))

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._shell.close(force=True)
