"""A process that encodes texts for another one; see `encoders`."""

import os
import signal
import struct
import sys
from typing import IO

import numpy as np

from minigpt_cli.errors import TokenizerError
from minigpt_cli.tokenizer.base import Job, Tokenizer
from minigpt_cli.tokenizer.factory import tokenizer_from_json

_COUNT = struct.Struct("<?I")
_LENGTH = struct.Struct("<?Q")


def write_job(file: IO[bytes], job: Job) -> None:
    """Sends texts to be encoded.

    Raises:
        OSError: nobody reads them.
    """
    texts = [text.encode("utf-8", "surrogatepass") for text in job.texts]
    lengths = np.array([len(text) for text in texts], dtype="<u4").tobytes()
    file.write(_COUNT.pack(job.ended, len(texts)) + lengths)
    file.write(b"".join(texts))
    file.flush()


def read_job(file: IO[bytes]) -> Job | None:
    """Receives texts to be encoded; None if there are no more."""
    head = file.read(_COUNT.size)
    if len(head) < _COUNT.size:
        return None
    ended, count = _COUNT.unpack(head)
    lengths = np.frombuffer(file.read(4 * count), dtype="<u4").tolist()
    texts = [file.read(length).decode("utf-8", "surrogatepass") for length in lengths]
    return Job(tuple(texts), ended)


def write_bytes(file: IO[bytes], data: bytes, failed: bool = False) -> None:
    """Sends bytes, or what failed."""
    file.write(_LENGTH.pack(failed, len(data)))
    file.write(data)
    file.flush()


def read_bytes(file: IO[bytes]) -> bytes:
    """Receives bytes.

    Raises:
        EOFError: the other process has ended.
        TokenizerError: it could not encode a text.
    """
    head = file.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    failed, length = _LENGTH.unpack(head)
    data = file.read(length)
    if len(data) < length:
        raise EOFError
    if failed:
        raise TokenizerError(data.decode())
    return data


def serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """Encodes what comes, with the tokenizer that comes first, until the other process ends."""
    tokenizer: Tokenizer = tokenizer_from_json(read_bytes(source).decode())
    while (job := read_job(source)) is not None:
        try:
            write_bytes(sink, tokenizer.encode_job(job).astype("<u4", copy=False).tobytes())
        except TokenizerError as error:
            write_bytes(sink, str(error).encode(), failed=True)


def main() -> None:
    """Serves the process that started this one."""
    for name in ("SIGINT", "SIGHUP"):  # of a terminal: the other process decides, and closes
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    try:
        serve(sys.stdin.buffer, sys.stdout.buffer)
    except (EOFError, BrokenPipeError):
        os._exit(0)  # without flushing what nobody reads


if __name__ == "__main__":
    main()
