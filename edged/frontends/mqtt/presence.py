"""What the device says of itself: status and info, retained at the broker."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import psutil
import structlog

from edged import __version__
from edged.errors import EdgedError
from edged.frontends.mqtt.message import Message, Publication
from edged.frontends.mqtt.wire import encode, head, read_object

if TYPE_CHECKING:
    from edged.clock import Clock
    from edged.core import Core
    from edged.frontends.mqtt.link import Link
    from edged.frontends.mqtt.topics import Topics
    from edged.settings import Settings

_log = structlog.get_logger(__name__)

CHECK_SECONDS = 1.0
INFO_SECONDS = 60.0  # after so long info is looked at again: what could not be told may be told then


class Presence:
    """Keeps the retained topics of this device true.

    Args:
        core: what is told of.
        link: the connection with the broker.
        topics: this device's.
        clock: for time stamps.
        settings: as they are now.
    """

    def __init__(
        self,
        *,
        core: Core,
        link: Link,
        topics: Topics,
        clock: Clock,
        settings: Callable[[], Settings],
    ) -> None:
        self._core = core
        self._link = link
        self._topics = topics
        self._clock = clock
        self._settings = settings
        self._told: tuple[str, str | None] = ("", None)  # phase and reason
        self._told_at = 0.0
        self._told_info = ""
        self._info_due = True  # to be compared with what was told
        self._info_at = 0.0
        self._process = ""  # what this process's sessions have in common
        self._own_heard = False  # our birth has come back: what comes after it is no echo of earlier times
        self._rival = ""  # the last session of another device of our id, or of an earlier process
        self._again = False  # the retained status is another's

    def will(self, session: str) -> Publication:
        """Return what the broker publishes when the connection with this session id breaks."""
        self._process = _process_of(session)
        return self._status("offline", "lost", session, "the connection broke")

    def connected(self) -> None:
        """Say that the device is here."""
        self._own_heard = False
        self._told = ("", None)
        self._told_info = ""
        self.refresh()

    def reload(self) -> None:
        """Tell of settings that have changed."""
        self._info_due = True
        self.refresh()

    async def run(self) -> None:
        """Publish what has changed, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            self.refresh()

    def refresh(self) -> None:
        """Publish what is no longer true at the broker, such as the phase; raises nothing."""
        for part in (self._refresh_status, self._refresh_info):
            try:
                part(time.monotonic())
            except Exception:
                # Figures of the system may be out of reach: the rest is told, and told again.
                _log.exception("a part of what the device says of itself could not be told")

    def heard(self, message: Message) -> Literal["here", "was_here"] | None:
        """Take a word about this device's status; say whether it tells of another device of the same id."""
        message.acknowledge()
        try:
            fields = read_object(message.payload)
        except EdgedError:
            fields = {}
        session, state = str(fields.get("session")), fields.get("state")
        if self._link.connection is not None and session == self._link.connection.session:
            self._own_heard = True
            return None
        foreign = _process_of(session) != self._process
        if not foreign and state == "offline":
            self._again = True  # the late will of a connection of ours
            return None
        left = foreign and session != self._rival and (message.retain or state == "offline")
        if left:
            self._rival = session
        if self._own_heard and not message.retain:
            self._again = True
            if foreign and state == "online":
                return "here"
        return "was_here" if left else None

    def farewell(self) -> Publication | None:
        """Return the last word before an orderly end."""
        connection = self._link.connection
        if connection is None:
            return None
        return self._status("offline", "stopped", connection.session, self._core.last_words)

    def _refresh_status(self, now: float) -> None:
        connection = self._link.connection
        if connection is None:
            return
        phase, reason = self._core.phase, self._core.engine.supervisor.reason
        if (phase, reason) == self._told and not (self._again and now - self._told_at >= CHECK_SECONDS):
            return
        status = self._status("online", phase, connection.session, reason)
        self._told, self._told_at, self._again = (phase, reason), now, False
        self._info_due = True
        self._link.publish(status)

    def _refresh_info(self, now: float) -> None:
        if self._link.connection is None or not (self._info_due or now - self._info_at >= INFO_SECONDS):
            return
        self._info_due, self._info_at = False, now
        info = encode(self._info())
        if info != self._told_info:
            self._told_info = info
            self._link.publish(Publication(self._topics.info, info.encode(), retain=True))

    def _status(self, state: str, phase: str, session: str, reason: str | None) -> Publication:
        fields = {
            **head(self._topics.device_id),
            "state": state,
            "phase": phase,
            "session": session,
            "reason": reason,
            **self._clock.fields(),
        }
        return Publication(self._topics.status, encode(fields).encode(), retain=True)

    def _info(self) -> dict[str, Any]:
        status, settings = self._core.status(), self._settings()
        return {
            **head(self._topics.device_id),
            "version": __version__,
            "python": platform.python_version(),
            "library": status["engine"]["library"],
            "model": status["model"],
            "limits": status["limits"],
            "host": {
                "machine": platform.machine(),
                "kernel": platform.release(),
                "cores": psutil.cpu_count(),
                "memory_bytes": psutil.virtual_memory().total,
            },
            "capabilities": {
                "commands": list(settings.mqtt.commands),
                "pool": settings.mqtt.pool or None,
                "open_ask": settings.mqtt.open_ask,
                "telemetry_interval_seconds": settings.telemetry.interval_seconds,
                "mqtt": self._link.connection.protocol if self._link.connection else None,
            },
        }


def _process_of(session: str) -> str:
    return session.rpartition("-")[0]
