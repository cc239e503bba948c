"""Starts the processes of `minigpt train --processes N` on this machine, and waits for them.

They are in the terminal's process group: Ctrl-C reaches all of them, as it reaches one.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from types import FrameType
from typing import NoReturn

import typer

from minigpt_cli.cli.boundary import ENDING
from minigpt_cli.io.ranks import PARENT
from minigpt_cli.language import _

_GRACE_SECONDS = 30.0
"""How long the others may take to end by themselves once a process failed."""
_POLL_SECONDS = 0.05


def launch(count: int) -> NoReturn:
    """Runs this command in `count` processes, and exits with their status.

    Raises:
        Exit: always.
    """
    children: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGINT:  # a terminal sends that one to all
            for child in children:
                if child.poll() is None:
                    child.send_signal(number)

    # A shell has its background jobs ignore signals: they stay ignored, also in the children.
    heard = [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in heard}
    try:
        port = _free_port()
        for rank in range(count):
            children.append(_start(rank, count, port))  # noqa: PERF401 - known to `pass_on` at once
        _wait(children)
    finally:
        for child in children:
            child.kill()
            child.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    raise typer.Exit(_status([child.returncode for child in children]))


def _start(rank: int, count: int, port: int) -> "subprocess.Popen[bytes]":
    own = {
        "RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, PARENT: os.getpid(),
    }  # fmt: skip
    loopback = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    if loopback is not None and "GLOO_SOCKET_IFNAME" not in os.environ:
        own["GLOO_SOCKET_IFNAME"] = loopback  # the machine's name may resolve to another network
    return subprocess.Popen(
        [sys.executable, "-m", "minigpt_cli", *sys.argv[1:]],
        env={**os.environ, **{name: str(value) for name, value in own.items()}},
        stdin=None if rank == 0 else subprocess.DEVNULL,
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _wait(children: "list[subprocess.Popen[bytes]]") -> None:
    """Waits for all; once one has failed, not for long."""
    failed_at = None
    while any(child.poll() is None for child in children):
        if failed_at is None and any(child.returncode for child in children):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > _GRACE_SECONDS:
            return
        time.sleep(_POLL_SECONDS)


def _status(statuses: list[int]) -> int:
    """The exit status of rank 0, which has said why; or one if it was killed."""
    first = statuses[0]
    if first < 0:
        from minigpt_cli.cli.console import print_error

        name = signal.Signals(-first).name
        message = _("process 0 of this run was ended by {signal}; resume it with --resume")
        print_error(message.format(signal=name))
        return 1
    return first or max((abs(status) for status in statuses), default=0)
