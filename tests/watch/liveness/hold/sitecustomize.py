"""Lets a test hold one part of a daemon: python loads this at its start where PYTHONPATH leads here.

EDGED_TEST_HOLD names the part. From SIGUSR2 on it stands still for ever: the event loop at once, a thread at
its next piece of work; of MQTT only the thread that is there then.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

wanted = threading.Event()


def held_still() -> None:
    """Stand still for ever."""
    threading.Event().wait()


def holding(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that stands still once."""

    @functools.wraps(function)
    def held(*args: Any) -> Any:
        if wanted.is_set():
            wanted.clear()
            held_still()
        return function(*args)

    return held


def on_signal(*_: object) -> None:
    """Hold the part, and say so in the log."""
    os.write(2, b'{"event": "the test holds a part", "level": "info"}\n')
    if part == "event_loop":
        held_still()
    wanted.set()


part = os.environ.pop("EDGED_TEST_HOLD", None)
if part is not None:
    signal.signal(signal.SIGUSR2, on_signal)
if part == "journal":
    from edged.core.journal.writer import Writer

    Writer.round = holding(Writer.round)  # type: ignore[method-assign]
if part == "mqtt":
    from edged.frontends.mqtt.link.box import Box

    Box.arrived = holding(Box.arrived)  # type: ignore[method-assign]
