"""What the daemon is at, for the log: the stacks of its threads and tasks, and its requests; no texts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import structlog

from edged.core.status import request
from edged.engine.messages import STACKS_SIGNAL

if TYPE_CHECKING:
    from edged.core import Core

_log = structlog.get_logger(__name__)

_TRIES = 100  # to read a list that the event loop may change meanwhile


def dump_all(core: Core, loop: asyncio.AbstractEventLoop) -> None:
    """Log everything. From any thread, also while the event loop stands still.

    The engine's stacks follow when it has written them and the event loop has read them.
    """
    dump_threads()
    for task in asyncio.all_tasks(loop):
        frames = [_place(frame) for frame in reversed(list(_awaited(task.get_coro())))]
        _log.error("stack of one of the daemon's tasks", task=task.get_name(), frames=frames)
    for ticket in _in_hand(core):
        _log.error("a request in hand", **request(ticket))
    if (pid := core.engine.supervisor.pid) is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, STACKS_SIGNAL)


def dump_threads() -> None:
    """Log what every thread is at, the innermost call first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        frames = [_place(called) for called in _callers(frame)]
        name = names.get(ident, f"{ident:#x}")
        _log.error("stack of one of the daemon's threads", thread=name, frames=frames)


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _awaited(waits: Any) -> Iterator[FrameType]:
    """Yield the frames of a coroutine and of what it waits for, as far as these are Python's."""
    while waits is not None:
        frame = getattr(waits, "cr_frame", None) or getattr(waits, "gi_frame", None)
        if frame is not None:
            yield frame
        waits = getattr(waits, "cr_await", None) or getattr(waits, "gi_yieldfrom", None)


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}"


def _in_hand(core: Core) -> list[Any]:
    for _ in range(_TRIES):
        with contextlib.suppress(RuntimeError):
            return core.in_hand()
    return []
