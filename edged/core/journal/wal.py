"""SQLite's write-ahead log, read from outside: how far it is written, and the pages in it.

The form is stable and documented (sqlite.org/fileformat2.html#walformat): a header, then frames of one page
each; a frame is of the present round when it carries the header's salts, and ends a transaction when it
says how large the database is after it.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

_HEADER = struct.Struct(">IIII8sII")  # magic, version, page size, count, salts, checksums
_FRAME = struct.Struct(">II8sII")  # page number, size after a commit or 0, salts, checksums
_MAGICS = (0x377F0682, 0x377F0683)


class WalPosition:
    """Follows how far the log is written; it is overwritten from its start after each checkpoint.

    Args:
        path: the log; it may come later.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None
        self._salts = b""
        self._page_bytes = 0
        self._at = 0

    def advance(self) -> int:
        """Return the bytes from the log's start to the end of its last frame."""
        try:
            if self._fd is None:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            return self._advance(self._fd)
        except OSError:
            return 0

    def _advance(self, fd: int) -> int:
        header = os.pread(fd, _HEADER.size, 0)
        if len(header) < _HEADER.size:
            return 0
        _, _, page_bytes, _, salts, _, _ = _HEADER.unpack(header)
        if salts != self._salts:
            self._salts, self._page_bytes, self._at = salts, page_bytes, _HEADER.size
        while True:
            frame = os.pread(fd, _FRAME.size, self._at)
            if len(frame) < _FRAME.size or frame[8:16] != self._salts:
                return self._at
            self._at += _FRAME.size + self._page_bytes

    def close(self) -> None:
        """Close the log."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
