"""Leaving pages of a mapped file to the page cache."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_MADV_DONTNEED = 4  # linux/mman.h; a shared mapping of a file loses nothing by it

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def leave_mapped(path: Path) -> None:
    """Take the pages of a mapped file out of this process; those that are touched again come back.

    They come back from the page cache, or from the disk where the machine has used their memory otherwise.
    """
    mapped = f" {os.path.realpath(path)}\n"
    with Path("/proc/self/maps").open() as maps:
        for line in maps:
            if line.endswith(mapped):
                first, end = (int(address, 16) for address in line.split(maxsplit=1)[0].split("-"))
                _libc.madvise(first, end - first, _MADV_DONTNEED)
