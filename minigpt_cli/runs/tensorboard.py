"""TensorBoard's event files, written without TensorBoard.

A file is a sequence of records, each framed by its length and two checksums, and each a protocol
buffer of the type `Event` (tensorboard/compat/proto/event.proto). Only the few fields that a curve
and a text need are written.
"""

import os
import struct
import time
from functools import cache
from pathlib import Path

from minigpt_cli.config.schema import RunConfig

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_STRING = 7
"""`DT_STRING` in TensorFlow's types."""


class TensorBoard:
    """A tracker that writes event files; open them with `tensorboard --logdir runs`.

    Args:
        folder: takes a file for each time the run is started or resumed.
        config: the run's settings, kept as a text.
        step: the steps done so far; TensorBoard drops what earlier files have of later ones.
    """

    def __init__(self, folder: Path, config: RunConfig, step: int) -> None:
        folder.mkdir(exist_ok=True)
        number = len(list(folder.iterdir()))
        path = folder / f"events.out.tfevents.{int(time.time()):010}.minigpt.{os.getpid()}.{number}"
        self._file = path.open("xb")
        self._write(_bytes(3, b"brain.Event:2"), 0)
        self._last = step
        self._restart(step + 1)
        if step == 0:
            self.text(0, "settings", f"```toml\n{config.to_toml()}```")

    def log(self, step: int, values: dict[str, float]) -> None:
        """Adds a point to each curve."""
        if step < self._last:
            self._restart(step)
        self._last = step
        summaries = (
            _bytes(1, _bytes(1, name.encode()) + _field(2, _FIXED32) + struct.pack("<f", value))
            for name, value in values.items()
        )
        self._write(_bytes(5, b"".join(summaries)), step)

    def text(self, step: int, name: str, text: str) -> None:
        """Adds a text, which TensorBoard shows as Markdown."""
        plugin = _bytes(9, _bytes(1, _bytes(1, b"text")))
        shape = _bytes(2, _bytes(2, _field(1, _VARINT) + _varint(1)))
        tensor = _field(1, _VARINT) + _varint(_STRING) + shape
        tensor += _bytes(8, text.encode("utf-8", "replace"))
        value = _bytes(1, name.encode()) + plugin + _bytes(8, tensor)
        self._write(_bytes(5, _bytes(1, value)), step)

    def close(self) -> None:
        """Closes the file; each record was written at once."""
        self._file.close()

    def _restart(self, step: int) -> None:
        """Says that a session starts: readers drop what they have from this step on."""
        self._write(_bytes(7, _field(1, _VARINT) + _varint(1)), step)

    def _write(self, fields: bytes, step: int) -> None:
        now = _field(1, _FIXED64) + struct.pack("<d", time.time())
        event = now + _field(2, _VARINT) + _varint(step) + fields
        length = struct.pack("<Q", len(event))
        self._file.write(length + _checksum(length) + event + _checksum(event))
        self._file.flush()


def _field(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _bytes(number: int, value: bytes) -> bytes:
    return _field(number, _BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _checksum(data: bytes) -> bytes:
    """CRC-32C (Castagnoli), masked as the format wants it."""
    table, crc = _crc_table(), 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@cache
def _crc_table() -> tuple[int, ...]:
    def entry(crc: int) -> int:
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        return crc

    return tuple(map(entry, range(256)))
