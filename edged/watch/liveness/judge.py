"""The judge: says which part stands still, has it replaced, or leaves the daemon to the service manager.

It runs in a thread of its own, so that it sees an event loop that is blocked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

from edged.progress import STANDS_STILL, Progress
from edged.watch.liveness.aside import aside
from edged.watch.liveness.dump import dump_threads
from edged.watch.liveness.part import Part
from edged.watch.liveness.words import line

if TYPE_CHECKING:
    from edged.core import Core
    from edged.systemd import Notifier

_log = structlog.get_logger(__name__)

EVENT_LOOP = "event_loop"
PERIOD_SECONDS = 5.0
EXTENSION_SECONDS = 30.0
"""What a start or stop that gets on is given each time: more than a period, so that none fails meanwhile."""


class Judge:
    """Looks at the parts, acts on what it sees, and feeds the watchdog while all get on.

    A part that stands still for its bound is named. One that can be replaced is. With any other the watchdog
    is fed no more, and if the part still has not moved after twice the bound (and twice the watchdog's time,
    where there is one) the daemon ends itself: nobody else did.

    Attributes:
        extends: whether the service manager is asked for more time while all get on: for a start or stop.
        parts: those under watch, by name.

    Args:
        core: told which parts stand still.
        notifier: the service manager.
        clock: gives monotonic seconds.
        exit: ends the process at once.
    """

    def __init__(
        self,
        core: Core,
        notifier: Notifier,
        *,
        clock: Callable[[], float] = time.monotonic,
        exit: Callable[[int], object] = os._exit,
    ) -> None:
        self.extends = True
        self.parts: dict[str, Part] = {}
        self._core = core
        self._notifier = notifier
        self._clock = clock
        self._exit = exit
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ping = Progress()
        self._line = self._told_line = ""
        self._looked_at: float | None = None
        self._engine_stalls = 0
        core.status_parts["liveness"] = self.fields
        self.watch(Part(EVENT_LOOP, lambda: self._ping, lambda: core.settings.watch.liveness.daemon_seconds))

    @property
    def period_seconds(self) -> float:
        """Return how often to look: four times within the shortest bound, thrice within the watchdog's."""
        bounds = [part.usual_seconds() / 4 for part in self.parts.values()]
        watchdog = self._notifier.watchdog_seconds
        return min(PERIOD_SECONDS, *bounds, watchdog / 3 if watchdog is not None else PERIOD_SECONDS)

    def watch(self, part: Part) -> None:
        """Take a part under watch."""
        self.parts[part.name] = part

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say which event loop it is about; from now on the service manager hears of it."""
        self._loop = loop
        self._tell_manager()

    def step(self) -> None:
        """Look once, and act."""
        seconds = self._awake_since_last_look()
        changed = [part for part in self.parts.values() if part.look(seconds)]
        stalled = [part for part in self.parts.values() if part.stalled]
        self._core.stalled = tuple(part.name for part in stalled)  # before anyone is told
        for part in changed:
            self._judge(part)
        if stalled:
            self._end_what_is_hopeless(stalled)
        else:
            self._tell_manager()
        self._ask_loop()

    def engine_hangs(self, silent_seconds: float) -> None:
        """Tell of an engine that stands still; its supervisor has judged it and restarts it."""
        self._engine_stalls += 1
        self._tell({"part": "engine", "still_seconds": round(silent_seconds, 1), "outcome": "restarted"})

    def fields(self) -> dict[str, Any]:
        """Return what the status tells. On the event loop."""
        return {
            "watchdog_seconds": self._notifier.watchdog_seconds,
            "parts": {name: part.fields() for name, part in self.parts.items()} | {"engine": self._engine()},
        }

    def _engine(self) -> dict[str, Any]:
        patience, owing = self._core.engine.supervisor.patience, self._core.engine.is_waiting()
        return {
            "state": "stalled" if owing and patience.exceeded(owing=owing) else "ok",
            "still_seconds": round(patience.silent_seconds, 1) if owing else 0.0,
            "bound_seconds": round(patience.bound_seconds(owing=owing), 1),
            "stalls": self._engine_stalls,
        }

    def _awake_since_last_look(self) -> float:
        """Return the seconds since the last look, but none that the whole process may have slept through."""
        now = self._clock()
        passed = now - self._looked_at if self._looked_at is not None else 0.0
        self._looked_at = now
        return min(passed, 2 * self.period_seconds)

    def _judge(self, part: Part) -> None:
        if not part.stalled:
            aside(lambda: _log.warning("a part of the daemon gets on again", part=part.name))
            return
        remedy = part.remedy
        facts = {
            "part": part.name,
            "still_seconds": round(part.still_seconds, 1),
            "outcome": "rebuilt" if remedy else "given_up",
        }

        def words() -> None:
            _log.error("a part of the daemon stands still", **facts)
            dump_threads()

        aside(words)
        if remedy is not None:
            self._on_loop(remedy)
        self._on_loop(lambda: self._tell(facts))

    def _tell(self, facts: dict[str, Any]) -> None:
        self._core.events.emit("part_stalled", limited=False, **facts)

    def _end_what_is_hopeless(self, stalled: list[Part]) -> None:
        patience = 2 * (self._notifier.watchdog_seconds or 0.0)
        for part in stalled:
            if part.still_seconds > 2 * part.bound_seconds + patience:
                self._end(part)
                return

    def _end(self, part: Part) -> None:
        facts = {"part": part.name, "still_seconds": round(part.still_seconds, 1)}
        aside(lambda: _log.critical("edged ends itself: a part stands still", **facts))
        self._exit(STANDS_STILL)

    def _tell_manager(self) -> None:
        self._notifier.alive()
        if self.extends:
            self._notifier.extend_timeout(EXTENSION_SECONDS)
        if self._line != self._told_line:
            self._told_line = self._line
            self._notifier.status(self._line)

    def _ask_loop(self) -> None:
        if not self._ping.owes:
            self._ping.expect()
            self._on_loop(self._answer)

    def _answer(self) -> None:
        self._ping.rest()
        self._line = line(self._core)

    def _on_loop(self, call: Callable[[], None]) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # it is closed: the daemon has ended
            self._loop.call_soon_threadsafe(call)
