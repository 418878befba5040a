"""From paho's thread to the event loop: in order, and bounded."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable

import structlog

_log = structlog.get_logger(__name__)

MAX_MESSAGES = 256
MAX_BYTES = 2 * 2**20
_AT_ONCE = 64  # then the event loop's other tasks have their turn

Event = Callable[[], None]


class Inbox:
    """Calls that a thread hands to the event loop.

    What answers our own packets is always taken: there is no more of it than we sent. Messages count
    against a bound until the loop has taken them.

    Attributes:
        dropped: messages for which there was no room and nobody waited.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.dropped = 0
        self._loop = loop
        self._events: deque[tuple[Event, int]] = deque()  # with the bytes that count
        self._changed = threading.Condition()
        self._messages = 0
        self._bytes = 0
        self._scheduled = False
        self._closed = False

    def put(self, event: Event) -> None:
        """Hand over what answers a packet of ours. From the thread."""
        with self._changed:
            self._append(event, 0)

    def put_message(self, event: Event, size: int, patience: float) -> bool:
        """Hand over a message of `size` > 0 bytes; wait up to `patience` seconds for room. From the thread.

        With no patience at all, a message without room is dropped and counted.

        Returns:
            False when there was no room.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._fits(size), patience):
                self.dropped += not patience
                return False
            self._messages += 1
            self._bytes += size
            self._append(event, size)
            return True

    def close(self) -> None:
        """Take nothing more and drop what waits. From the loop."""
        with self._changed:
            self._closed = True
            self._events.clear()
            self._messages = self._bytes = 0
            self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        # A message larger than the bound fits when it is alone.
        return (
            self._closed
            or not self._messages
            or (self._messages < MAX_MESSAGES and self._bytes + size <= MAX_BYTES)
        )

    def _append(self, event: Event, size: int) -> None:
        if self._closed:
            return
        self._events.append((event, size))
        if not self._scheduled:
            self._scheduled = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        for _ in range(_AT_ONCE):
            with self._changed:
                if not self._events:
                    self._scheduled = False
                    return
                event, size = self._events.popleft()
                if size:
                    self._messages -= 1
                    self._bytes -= size
                    self._changed.notify_all()
            try:
                event()
            except Exception:
                _log.exception("mqtt_event_failed")
        self._loop.call_soon(self._deliver)
