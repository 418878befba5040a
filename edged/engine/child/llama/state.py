"""Copies of what the KV cache holds of one sequence."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any


class State:
    """A copy of one stream's state, in pages of its own, which the system has back as soon as it is dropped.

    Attributes:
        size: bytes.
        pages: the memory, as the library takes it.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.pages: Any = (ctypes.c_uint8 * size).from_buffer(pages)
