"""What a disk has on it when the power goes: read from the log that qemu's blklogwrites keeps of its writes.

Up to the last flush everything is there. Of what came after it a part is missing or torn: a disk promises no
more. The log's form is dm-log-writes'
(docs.kernel.org/admin-guide/device-mapper/log-writes.html).
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MAGIC = 0x6A736677736872
_HEAD = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")
FLUSH, FUA, DISCARD = 1, 2, 4


@dataclass(frozen=True)
class Write:
    """One entry of the log.

    Attributes:
        offset: bytes, on the disk.
        size: bytes; a flush has none.
        data: where in the log they are.
        flags: of FLUSH, FUA and DISCARD.
    """

    offset: int
    size: int
    data: int
    flags: int


@dataclass(frozen=True)
class Cut:
    """What became of the writes.

    Attributes:
        kept: entries up to the cut that are on the disk.
        lost: writes after the last flush that are not.
        torn: those that are there in part.
        later: entries after the cut, which are gone as well.
    """

    kept: int
    lost: int
    torn: int
    later: int


def recorded(log: Path) -> int:
    """Return how many entries a log has."""
    return _head(log)[0]


def entries(log: Path) -> Iterator[Write]:
    """Read a log.

    Raises:
        ValueError: it is none, or ends too early.
    """
    count, sector = _head(log)
    with log.open("rb") as file:
        place = sector
        for _ in range(count):
            file.seek(place)
            head = file.read(_ENTRY.size)
            if len(head) < _ENTRY.size:
                raise ValueError(f"{log} ends before its last entry")
            first, sectors, flags, _ = _ENTRY.unpack(head)
            size = 0 if flags & DISCARD else sectors * sector
            yield Write(first * sector, size, place + sector, flags)
            place += sector + size


def rebuild(log: Path, disk: Path, chance: random.Random, *, least: int = 0) -> Cut:
    """Put what survives a power cut on a disk, which is as it was when the log began.

    Args:
        log: what was written since.
        disk: raw; written to.
        chance: decides where the cut is and what is lost.
        least: entries that were there before the cut.
    """
    writes = list(entries(log))
    end = chance.randint(least, len(writes))
    flushed = max((number for number in range(end) if writes[number].flags & FLUSH), default=-1)
    share, lost, torn = chance.random(), 0, 0
    sector = _head(log)[1]
    with log.open("rb") as source, disk.open("r+b") as target:
        for number, write in enumerate(writes[:end]):
            size = write.size
            if size and number > flushed and not write.flags & FUA and chance.random() < share:
                size = chance.randrange(size // sector) * sector
                lost, torn = lost + (size == 0), torn + (size > 0)
            os.pwrite(target.fileno(), os.pread(source.fileno(), size, write.data), write.offset)
    return Cut(end - lost - torn, lost, torn, len(writes) - end)


def _head(log: Path) -> tuple[int, int]:
    with log.open("rb") as file:
        head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        raise ValueError(f"{log} has no head yet")
    magic, _, count, sector = _HEAD.unpack(head)
    if magic != _MAGIC:
        raise ValueError(f"{log} is not a log of writes")
    return count, sector
