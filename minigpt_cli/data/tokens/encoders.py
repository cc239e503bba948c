"""Texts are encoded by all cores, in processes, and come back in order.

Not by `multiprocessing`: it pickles, and it runs the caller's main module again. A process gets the
tokenizer as JSON and texts as UTF-8, and gives bytes. It ends by itself when its pipe is closed, so
none is left behind, however this process ends.
"""

import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import IO

import numpy as np
from numpy.typing import NDArray

from minigpt_cli.data.tokens.encoder_process import read_bytes, write_bytes, write_job
from minigpt_cli.errors import CorpusError
from minigpt_cli.language import _
from minigpt_cli.tokenizer.base import Job, Tokenizer

WORTH_PROCESSES = 32_000_000
"""Bytes of text that take much longer to encode than processes to start."""
_AHEAD = 2
"""Jobs of each process that are read before the first of them is done."""
_PATIENCE = 0.5
_KINDS = ("bpe", "pretrained", "word")
"""Kinds that take longer to encode a text than to send it to another process."""
_START = "from minigpt_cli.data.tokens.encoder_process import main; main()"

Encode = Callable[[Iterable[Job]], Iterator[NDArray[np.uint32]]]
"""Encodes jobs, and gives the ids of each in the same order."""


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def encoding(tokenizer: Tokenizer, text_bytes: int) -> Iterator[Encode]:
    """Encodes a text with all cores where that pays, or else in this process.

    Args:
        tokenizer: encodes.
        text_bytes: size of the text.

    Yields:
        What encodes the jobs of a text.
    """
    cores = usable_cores() if tokenizer.kind in _KINDS and sys.executable else 1
    if text_bytes < WORTH_PROCESSES or cores == 1:
        yield lambda jobs: map(tokenizer.encode_job, jobs)
        return
    encoders = Encoders(tokenizer, min(cores, 1 + text_bytes // (WORTH_PROCESSES // 4)))
    try:
        yield encoders.encode
    finally:
        encoders.close()


class Encoders:
    """Processes that encode; `close` ends them.

    Args:
        tokenizer: encodes.
        count: how many processes.

    Raises:
        OSError: the system starts no more processes.
    """

    def __init__(self, tokenizer: Tokenizer, count: int) -> None:
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="encoders")
        try:
            saved = tokenizer.to_json().encode()
            for _ in range(count):
                process = _started()
                self._processes.append(process)
                self._threads.submit(self._introduce, process, saved)
        except BaseException:
            self.close()
            raise

    def encode(self, jobs: Iterable[Job]) -> Iterator[NDArray[np.uint32]]:
        """The ids of each job, in order.

        Raises:
            CorpusError: a process has ended by itself.
            TokenizerError: a text contains something that the vocabulary cannot encode.
        """
        pending: deque[Future[NDArray[np.uint32]]] = deque()
        for job in jobs:
            pending.append(self._threads.submit(self._encoded, job))
            if len(pending) > _AHEAD * len(self._processes):
                yield _result(pending.popleft())
        while pending:
            yield _result(pending.popleft())

    def close(self) -> None:
        """Ends all processes, whatever they are doing."""
        for process in self._processes:
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):  # what it did not read any more
                        pipe.close()

    def _introduce(self, process: subprocess.Popen[bytes], saved: bytes) -> None:
        with suppress(OSError):  # if it has ended, its first job says so
            write_bytes(_pipe(process.stdin), saved)
        self._idle.put(process)

    def _encoded(self, job: Job) -> NDArray[np.uint32]:
        process = self._idle.get()
        try:
            write_job(_pipe(process.stdin), job)
            return np.frombuffer(read_bytes(_pipe(process.stdout)), dtype="<u4")
        except (OSError, EOFError):
            raise CorpusError(
                _(
                    "a process that tokenizes has ended (exit status {status}), perhaps for lack "
                    "of memory; close other programs and run the command again"
                ).format(status=process.wait())
            ) from None
        finally:
            self._idle.put(process)


def _started() -> subprocess.Popen[bytes]:
    # This program's own path, which does not have the current folder on it.
    where = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    # A core each: the library would start a thread for every core in every process.
    alone = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **where, **alone},
    )


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def _result(future: Future[NDArray[np.uint32]]) -> NDArray[np.uint32]:
    while True:  # on Windows, Ctrl-C does not end a wait
        with suppress(TimeoutError):
            return future.result(timeout=_PATIENCE)
