"""The daemon: its layers started in order, and stopped in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from edged import __version__, log, paths
from edged.clock import Clock
from edged.core import Core
from edged.core.commands import Commands
from edged.core.durable import Durable
from edged.core.journal import Journal
from edged.engine.client import Engine
from edged.engine.plan import Planner
from edged.errors import EdgedError, ErrorCode
from edged.restarts import SETTLED_SECONDS, Restarts
from edged.settings import Settings, SettingsError, changes, load, reloaded
from edged.systemd import Notifier, listen_fds
from edged.telemetry.service import Telemetry
from edged.watch.liveness.judge import Judge
from edged.watch.liveness.part import Part
from edged.watch.liveness.thread import LivenessThread
from edged.watch.liveness.words import line
from edged.watch.watch import Watches

if TYPE_CHECKING:
    from edged.frontends.http import HttpFrontend
    from edged.frontends.mqtt.frontend import MqttFrontend
    from edged.settings.watch import LivenessTable

_log = structlog.get_logger(__name__)

# What handlers need to write their last frames once the core has ended their requests.
LAST_FRAMES_SECONDS = 1.0
GOODBYE_SECONDS = 3.0  # for a broker to take what is left
EXIT_SECONDS = 8.0  # for the rest of a stop


class App:
    """One daemon.

    Args:
        settings: as read at start.
        config: the file that they came from, read again on SIGHUP.
        root: where the watches find /proc and /sys.
    """

    def __init__(self, settings: Settings, config: Path | None, *, root: Path = Path("/")) -> None:
        self._settings = settings
        self._config = config
        self._notifier = Notifier.from_environment()
        planner = Planner(settings, lambda: self._watches.memory.memory())
        self._engine = Engine(planner.plan, stall_seconds=settings.watch.liveness.engine_seconds)
        clock = Clock()
        self._durable: Durable | None = None
        if settings.mqtt.url:  # nothing else needs a journal, and a card lives longer without
            journal = Journal(settings.state_dir, settings=settings.journal, clock=clock)
            self._durable = Durable(journal, clock)
        self._core = Core(settings, self._engine, self._durable, clock=clock)
        self._watches = Watches(self._core, planner, self._give_up, root=root)
        self._judge = Judge(self._core, self._notifier)
        self._liveness = LivenessThread(self._judge, self._core)
        self._telemetry = Telemetry(
            self._core, memory=self._watches.memory, thermal=self._watches.thermal, root=root
        )
        history = self._telemetry.history
        self._commands = Commands(
            self._core,
            planner,
            reload=self._reload,
            set_log_level=log.set_level,
            history=history.page if history else None,
        )
        self._http: HttpFrontend | None = None  # once the engine has begun to load
        self._mqtt: MqttFrontend | None = None
        if self._durable is not None:
            from edged.frontends.mqtt.frontend import MqttFrontend  # it takes memory: only where it is used

            self._mqtt = MqttFrontend(
                core=self._core,
                commands=self._commands,
                telemetry=self._telemetry,
                settings=settings,
                clock=clock,
            )
        self._name_parts()
        self._stop = asyncio.Event()
        self._stop_at_once = asyncio.Event()
        self._given_up: EdgedError | None = None

    def _name_parts(self) -> None:
        """Put the threads that there are under watch, beside the event loop, and hear of the engine."""
        self._engine.supervisor.on_hang = self._judge.engine_hangs
        if self._durable is not None:
            journal = self._durable.journal
            self._judge.watch(Part("journal", journal.progress, lambda: self._bounds.journal_seconds))
        if self._mqtt is not None:
            for name, link in self._mqtt.links.items():
                part = Part(name, link.progress, lambda: self._bounds.daemon_seconds, link.rebuild)
                self._judge.watch(part)

    @property
    def _bounds(self) -> LivenessTable:
        return self._core.settings.watch.liveness

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; a second one ends the graceful stop.

        Raises:
            EdgedError: the daemon can't start, with the remedy; or it has ended for want of memory
                (`low_memory`).
        """
        async with AsyncExitStack() as stack:
            stack.enter_context(_state_directory(self._settings.state_dir))
            _make_directory(self._settings.runtime_dir, "runtime_dir")
            stack.enter_context(self._signals())
            self._liveness.start()
            stack.callback(self._liveness.stop)
            restarts = Restarts(self._settings.state_dir)
            if self._notifier.address is not None:  # whoever starts it by hand need not wait
                await self._wait(restarts.begin())
            if self._stop.is_set():
                return  # it never served, so the starts that failed still count
            if self._durable is not None:
                stack.push_async_callback(self._durable.journal.close)
                await self._durable.open()
            engine = asyncio.create_task(self._engine.run(), name="engine")
            stack.push_async_callback(_cancelled, engine)
            watches = asyncio.create_task(self._watches.run(), name="watches")
            stack.push_async_callback(_cancelled, watches)
            telemetry = asyncio.create_task(self._telemetry.run(), name="telemetry")
            stack.push_async_callback(_cancelled, telemetry)
            make_http = await asyncio.to_thread(_http_frontend)
            http = self._http = make_http(self._core, self._core.settings, self._commands, self._telemetry)
            await http.start(listen_fds())
            stack.push_async_callback(self._stop_serving, http)
            if self._mqtt is not None:
                self._mqtt.start()
            _log.info("edged has started", version=__version__, pid=os.getpid())
            self._judge.extends = False
            self._notifier.ready(line(self._core))
            asyncio.get_running_loop().call_later(SETTLED_SECONDS, restarts.settle)
            stopped = asyncio.create_task(self._stop.wait(), name="stop")
            await asyncio.wait([stopped, engine, watches], return_when=asyncio.FIRST_COMPLETED)
            for task in (engine, watches):
                if task.done():
                    task.result()  # a fault of ours: better to start anew
            if self._given_up is not None:
                raise self._given_up
        restarts.settle()

    async def _wait(self, seconds: float) -> None:
        """Wait before a start like those that failed, or until a stop."""
        if seconds > 0:
            _log.warning("the last starts failed, so this one waits", seconds=seconds)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), seconds)

    async def _stop_serving(self, http: HttpFrontend) -> None:
        self._judge.extends = True
        self._notifier.stopping("ending what runs")
        self._notifier.extend_timeout(self._core.settings.stop_seconds + EXIT_SECONDS)
        _log.info("stopping", running=self._core.running, budget_seconds=self._core.settings.stop_seconds)
        budget = self._core.settings.stop_seconds
        graceful = asyncio.gather(self._end_requests(budget), http.stop(budget + LAST_FRAMES_SECONDS))
        at_once = asyncio.create_task(self._stop_at_once.wait())
        ends: list[asyncio.Future[Any]] = [graceful, at_once]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        at_once.cancel()
        if graceful.done():
            graceful.result()
        else:
            _log.warning("stopping at once")
            await _cancelled(graceful)
            await asyncio.gather(self._end_requests(0), http.stop(0))
        _log.info("edged has stopped")

    async def _end_requests(self, budget_seconds: float) -> None:
        self._core.close()
        if self._mqtt is not None:
            await self._mqtt.close()
        await self._core.stop(budget_seconds)
        if self._mqtt is not None:
            await self._mqtt.stop(GOODBYE_SECONDS)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGTERM: self._ask_to_stop,
            signal.SIGINT: self._ask_to_stop,
            signal.SIGHUP: self._reload,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)

    def _give_up(self, reason: str) -> None:
        """End at once: to be started again by the service manager costs less than what would come."""
        _log.critical("the daemon ends, to be started again", reason=reason)
        self._core.last_words = reason
        self._given_up = EdgedError(ErrorCode.LOW_MEMORY, reason)
        self._stop.set()
        self._stop_at_once.set()

    def _ask_to_stop(self) -> None:
        (self._stop_at_once if self._stop.is_set() else self._stop).set()

    def _reload(self) -> dict[str, Any]:
        """Take over what has changed in the settings; return what has, what can't be, and what is wrong."""
        outcome: dict[str, Any] = {"changed": [], "needs_restart": [], "faults": []}
        self._notifier.reloading()
        try:
            new = load(self._config)
        except SettingsError as error:
            outcome["faults"] = error.faults
            for fault in error.faults:
                _log.error("the settings stay as they are", fault=fault)
        else:
            for change in changes(self._core.settings, new):
                outcome["changed" if change.reloadable else "needs_restart"].append(change.key)
                words = "changed" if change.reloadable else "needs a restart"
                _log.info("setting", key=change.key, old=change.old, new=change.new, outcome=words)
            settings = reloaded(self._core.settings, new)
            log.set_level(settings.log_level)
            self._core.reload(settings)
            if self._http is not None:
                self._http.reload(settings)
            if self._mqtt is not None:
                self._mqtt.reload(settings)
        self._core.events.emit("reload", **outcome)
        self._notifier.ready(line(self._core))
        return outcome


def _http_frontend() -> type[HttpFrontend]:
    """Return the class: to import it takes as long as the engine takes to load a small model."""
    from edged.frontends.http import HttpFrontend

    return HttpFrontend


async def _cancelled(task: asyncio.Future[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _make_directory(path: Path, key: str) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, key, error) from None


def _unusable(path: Path, key: str, error: OSError) -> EdgedError:
    return EdgedError(
        ErrorCode.NOT_ALLOWED,
        f"the directory {path} can't be used: {error.strerror}; set {key} to one that can",
    )


@contextlib.contextmanager
def _state_directory(path: Path) -> Iterator[None]:
    """Make the state directory and hold it for this daemon alone.

    Raises:
        EdgedError: it can't be made, or another daemon holds it.
    """
    with ExitStack() as stack:
        _make_directory(paths.models_dir(path), "state_dir")
        try:
            lock = stack.enter_context((path / "lock").open("a+"))
        except OSError as error:
            raise _unusable(path, "state_dir", error) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise EdgedError(
                ErrorCode.NOT_ALLOWED,
                f"another edged (pid {lock.read().strip() or 'unknown'}) uses the state directory {path}; "
                "stop it, or give this one a state_dir of its own",
            ) from None
        with contextlib.suppress(OSError):  # on a full card the lock holds all the same
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
        yield
