"""Ending a decode that another thread computes."""

from __future__ import annotations

import ctypes
from typing import Any

from edged.engine.child.llama.library import lib, log


class Abort:
    """Makes the decodes of one native context end as aborted while it is asked for."""

    def __init__(self, context: Any) -> None:
        # strlen of these two bytes is the abort callback: 0 while the first is 0. A Python callback would
        # take the GIL at every node of the graph.
        self._flag = ctypes.create_string_buffer(2)
        strlen = ctypes.cast(ctypes.CDLL(None).strlen, lib.ggml_abort_callback)
        lib.llama_set_abort_callback(context, strlen, ctypes.cast(self._flag, ctypes.c_void_p))

    def ask(self) -> None:
        """Make the decode that runs in another thread return ABORTED at the next node of its graph."""
        log.aborting = True
        self._flag[0] = b"\1"

    def clear(self) -> None:
        """Let decodes run again after `ask`."""
        log.aborting = False
        self._flag[0] = b"\0"
