"""One process of the engine, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence

import structlog

from edged.engine.messages import Heartbeat, Load, Message, Ready
from edged.engine.supervision.childlog import ChildLog
from edged.engine.supervision.hang import log_stacks
from edged.engine.supervision.link import Link
from edged.engine.supervision.oom import oom_kills
from edged.engine.supervision.patience import Patience
from edged.engine.supervision.process import Death, child_environment
from edged.engine.supervision.starving import CoreWaits
from edged.engine.wire import ProtocolError, encode

_log = structlog.get_logger(__name__)

EXIT_SECONDS = 2.0  # from the end of the messages to the end of the process


class Life:
    """Starts a process, hands on what it says, and kills it when it hangs.

    Args:
        patience: how long it may be silent.
        is_owing: says whether an answer of the process's is due.
        on_hang: told how many seconds it has been silent, when that is too long.
        command: its program.
    """

    def __init__(
        self,
        patience: Patience,
        is_owing: Callable[[], bool],
        on_hang: Callable[[float], None],
        command: Sequence[str],
    ) -> None:
        self._patience = patience
        self._is_owing = is_owing
        self._on_hang = on_hang
        self._command = command
        self._verdict: str | None = None
        self._is_over = False
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Return the process's number, once it has one."""
        return self._process.pid if self._process else None

    async def start(self, load: Load) -> None:
        """Start the process and tell it what to load.

        Raises:
            OSError: it can't be started.
        """
        self._kills_before = oom_kills()
        ours, its = socket.socketpair()
        with its:
            _, self._link = await asyncio.get_running_loop().create_connection(Link, sock=ours)
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    str(its.fileno()),
                    str(os.getpid()),
                    pass_fds=(its.fileno(),),
                    env=child_environment(),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                    limit=1 << 20,
                )
            except BaseException:
                self._link.transport.close()
                raise
        self._process = process
        if self._is_over:  # it was ended while it was being made
            process.kill()
        self._patience.begin()
        assert process.stderr is not None
        self._written = ChildLog(process.stderr)
        self._logging = asyncio.create_task(self._written.run(), name="engine log")
        self._watching = asyncio.create_task(self._watch(process), name="engine watch")
        self._link.transport.write(encode(load))

    def send(self, message: Message) -> None:
        """Send a message; it is lost if the process is about to end."""
        self._link.transport.write(encode(message))

    def kill(self) -> None:
        """End the process at once, or as soon as there is one."""
        self._is_over = True
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def listen(self, take: Callable[[Message], None]) -> None:
        """Hand the process's messages on until it closes its end.

        Raises:
            Exception: what `take` raised.
        """

        def hear(messages: Sequence[Message]) -> None:
            owing = self._is_owing()
            for message in messages:
                if isinstance(message, Ready):
                    self._patience.loaded()
                elif not (owing and isinstance(message, Heartbeat)):  # who rests has forgotten what it owes
                    self._patience.heard(owing=owing)
                take(message)

        self._link.begin(hear)
        match await self._link.closed:
            case ConnectionError() | ProtocolError() as error:
                self._verdict = f"its messages could not be read: {error}"
            case Exception() as error:
                raise error

    async def wind_down(self) -> None:
        """Wait for the end of a process that has closed its end, and for its last words; not for long."""
        assert self._process is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EXIT_SECONDS):
                await self._process.wait()
                await asyncio.shield(self._logging)

    async def end(self) -> Death:
        """Kill the process if it still runs, and say how it ended."""
        assert self._process is not None
        self._link.transport.close()
        self.kill()
        code = await self._process.wait()
        self._watching.cancel()
        self._logging.cancel()
        return Death(self._process.pid, code, self._verdict, oom_kills().cause_since(self._kills_before))

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Kill a process that has been silent for too long, once the log has what it was at."""
        silent, waits = None, CoreWaits(process.pid)
        while silent is None:
            await asyncio.sleep(min(1.0, self._patience.stall_seconds / 4))
            self._patience.excuse(waits.more())
            silent = self._patience.exceeded(owing=self._is_owing())
        self._verdict = f"it gave no sign of life for {silent:.1f} s"
        _log.error("the engine hangs", pid=process.pid, silent_seconds=round(silent, 1))
        try:
            self._on_hang(silent)
            await log_stacks(process, self._written)
        finally:
            self.kill()
