"""The mark beside the database: what it must hold at least, known without it.

Two slots are written in turn, each in a block of its own, so that a torn write leaves the other one. It is
written without a flush after each commit (a kill can't hurt it) and flushed now and then: when the power goes
it may be behind the database, which is harmless.
"""

from __future__ import annotations

import os
import struct
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

_SLOT_BYTES = 4096
_FORM = struct.Struct(">8sQQQQQ16s")  # magic, count of writes, then the state
_MAGIC = b"edgedmk1"
_CHECKSUM_BYTES = 16


class MarkState(NamedTuple):
    """What the mark says.

    Attributes:
        highest: the highest serial that was committed.
        floor: no ask, answer or event has a lower serial; 0 where there is none.
        acknowledged: every answer and event up to this serial has left the outbox.
        run: the number of the start that wrote it.
        salt: the journal's salt, which must survive the database.
    """

    highest: int
    floor: int
    acknowledged: int
    run: int
    salt: bytes


class Mark:
    """The file, open.

    Attributes:
        state: what it says; None if it is new or unreadable.

    Raises:
        OSError: it can't be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # on a read-only file system it can be read all the same
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        slots = [_parse(os.pread(self._fd, _SLOT_BYTES, at)) for at in (0, _SLOT_BYTES)]
        newest = max((slot for slot in slots if slot), default=None)
        self.state: MarkState | None = newest[1] if newest else None
        self._writes = newest[0] if newest else 0
        self._dirty = False

    def write(self, state: MarkState) -> None:
        """Write a state, without flushing it.

        Raises:
            OSError: it can't be written.
        """
        if state == self.state:
            return
        self._writes += 1
        data = _FORM.pack(_MAGIC, self._writes, *state)
        slot = data + _checksum(data)
        os.pwrite(self._fd, slot, self._writes % 2 * _SLOT_BYTES)
        self.state = state
        self._dirty = True

    def sync(self) -> None:
        """Flush what was written.

        Raises:
            OSError: the device does not take it.
        """
        if self._dirty:
            os.fdatasync(self._fd)
            self._dirty = False

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def _checksum(data: bytes) -> bytes:
    return blake2b(data, digest_size=_CHECKSUM_BYTES).digest()


def _parse(slot: bytes) -> tuple[int, MarkState] | None:
    data = slot[: _FORM.size]
    if len(data) < _FORM.size or slot[_FORM.size : _FORM.size + _CHECKSUM_BYTES] != _checksum(data):
        return None
    magic, writes, *state = _FORM.unpack(data)
    return (writes, MarkState(*state)) if magic == _MAGIC else None
