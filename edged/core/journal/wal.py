"""SQLite's write-ahead log, seen from outside: how far it is written, and the pages in it.

The form is stable and documented (sqlite.org/fileformat2.html#walformat): a header, then frames of one page
each. A frame is of the present round when it carries the header's salts, and ends a transaction when it says
how large the database is after it. What follows the last frame of a round is ignored, zeros too.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from pathlib import Path

_HEADER = struct.Struct(">IIII8s8s")  # magic, version, page size, count of rounds, salts, checksum
_FRAME = struct.Struct(">II8s8s")  # page number, size after a commit or 0, salts, checksum
_BLOCK_BYTES = 4096


def wal_path(path: Path) -> Path:
    """Return where SQLite keeps the log of a file."""
    return path.with_name(path.name + "-wal")


class WalFile:
    """The log of an open database.

    Args:
        path: the log.

    Raises:
        OSError: there is none.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._salts = b""
        self._taken = b""  # the salts of a round that is in the database as a whole
        self._frame_bytes = 0
        self._at = 0

    def used(self) -> int:
        """Return the bytes up to the end of the last frame; 0 when all has been taken over."""
        header = os.pread(self._fd, _HEADER.size, 0)
        if len(header) < _HEADER.size or not any(header):
            return 0
        _, _, page_bytes, _, salts, _ = _HEADER.unpack(header)
        if salts == self._taken:
            return 0
        if salts != self._salts:
            self._salts, self._at = salts, _HEADER.size
            self._frame_bytes = _FRAME.size + page_bytes
        while True:
            frame = os.pread(self._fd, _FRAME.size, self._at)
            if len(frame) < _FRAME.size or frame[8:16] != self._salts:
                return self._at
            self._at += self._frame_bytes

    def taken_over(self) -> None:
        """Note that the database holds all of it: the next commit begins at the start again."""
        self.used()
        self._taken = self._salts

    def extend(self, size: int) -> None:
        """Lengthen the log with zeros: commits within its length spare the file system's own writes.

        Raises:
            OSError: there is no room for that.
        """
        have = os.fstat(self._fd).st_size
        if have < size:
            for at in range(
                have, size, _BLOCK_BYTES
            ):  # in small writes, so that the kernel caches small pages
                os.pwrite(self._fd, bytes(min(_BLOCK_BYTES, size - at)), at)
            os.fdatasync(self._fd)  # or the next commit would have to wait for it

    def scrub(self) -> None:
        """Overwrite the log, all of which must be in the database, so that no text is left in it.

        Raises:
            OSError: it can't be written.
        """
        # Without its header the log is empty: before that a part of it could be taken for the whole.
        os.pwrite(self._fd, bytes(_HEADER.size), 0)
        os.fdatasync(self._fd)
        at = _HEADER.size
        while any(chunk := os.pread(self._fd, _BLOCK_BYTES, at)):
            at += os.pwrite(self._fd, bytes(len(chunk)), at)
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the log."""
        os.close(self._fd)


def committed_pages(log: bytes, page_bytes: int) -> dict[int, bytes]:
    """Return the newest committed image of each page in a log, damaged ones too.

    Unlike SQLite this goes on behind a frame with a wrong checksum: the rows in the pages have their own.
    """
    starts = range(_HEADER.size, len(log) - _FRAME.size - page_bytes + 1, _FRAME.size + page_bytes)
    frames = [_FRAME.unpack_from(log, at) for at in starts]
    if not frames:
        return {}
    # Three witnesses, since one may be damaged.
    witnesses = [log[16:24], *(salts for _, _, salts, _ in frames[:2])]
    [(salts, _)] = Counter(witnesses).most_common(1)
    pages: dict[int, bytes] = {}
    pending: dict[int, bytes] = {}
    for at, (number, size, frame_salts, _) in zip(starts, frames, strict=True):
        if frame_salts != salts:
            continue
        pending[number] = log[at + _FRAME.size : at + _FRAME.size + page_bytes]
        if size:
            pages |= pending
            pending = {}
    return pages


def page_bytes_of(log: bytes) -> int:
    """Return the size of the pages as a log's header tells it; 0 if it has none."""
    return int(_HEADER.unpack_from(log)[2]) if len(log) >= _HEADER.size else 0
