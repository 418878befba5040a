"""The life of the engine's process: start, listen, notice its death or silence, start again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import structlog

from edged.engine.messages import (
    Decoder,
    Heartbeat,
    Load,
    LoadFailed,
    Loading,
    Message,
    ProtocolError,
    Ready,
    encode,
)
from edged.engine.process import COMMAND, Death, child_environment, forward_log
from edged.errors import EdgedError, ErrorCode

_log = structlog.get_logger(__name__)

EXIT_SECONDS = 2.0  # from the end of the messages to the end of the process
HEARTBEAT_GRACE_SECONDS = 10.0  # the engine's heartbeat at rest comes every 5 s
LOAD_STALL_SECONDS = 180.0  # a cold card of 10 MB/s reads 1.8 GB in that time
BACK_OFF_SECONDS = (0.0, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
STEPS_OF_PATIENCE = 10
FADING = 0.98
NO_PLAN_RETRY_SECONDS = 5.0  # a model that isn't there is looked for again: its file may have come
REFUSED_RETRY_SECONDS = 60.0  # a model that the library refused is tried again: its file may be another

State = Literal["starting", "ready", "restarting", "failed", "unloaded", "stopped"]


class Listener(Protocol):
    """Who is told what the engine says and what becomes of it."""

    def on_message(self, message: Message) -> None:
        """Take one of the engine's messages."""

    def on_ready(self, ready: Ready) -> None:
        """Send what waits: the engine serves from now on."""

    def on_death(self, reason: str, *, blameless: bool) -> None:
        """Keep what was running for the next life; `blameless` deaths don't count against requests."""

    def on_failed(self, error: EdgedError) -> None:
        """Refuse what waits: the engine can't be started as things are."""

    def is_waiting(self) -> bool:
        """Say whether an answer of the engine's is due."""


class Supervisor:
    """Keeps one engine process alive.

    Attributes:
        state: what an operator is told.
        reason: why it is restarting or failed.
        pid: the process, while there is one.
        restarts: how often a process was started because the one before had died.
        load_progress: the share of the model that is loaded, while it is loading.
        stall_seconds: an engine that owes an answer and is silent for so long is killed, unless it has
            been slow before.

    Args:
        plan: says what to load; raises EdgedError when nothing can be.
        on_illegal_instruction: told of a death by SIGILL with repacked weights; says whether the next
            `plan` does without them.
        listener: told of messages and of life and death.
        stall_seconds: see the attribute.
        command: the engine's program; a test's may stand in.
    """

    def __init__(
        self,
        *,
        plan: Callable[[], Load],
        on_illegal_instruction: Callable[[], bool],
        listener: Listener,
        stall_seconds: float,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._plan = plan
        self._on_illegal_instruction = on_illegal_instruction
        self._listener = listener
        self.stall_seconds = stall_seconds
        self._command = command
        self.state: State = "starting"
        self.reason: str | None = None
        self.pid: int | None = None
        self.restarts = 0
        self.load_progress: float | None = None
        self._told: str | None = None  # the failure that the log has last
        self._refused = False  # the library has refused this model
        self._verdict: str | None = None  # why the process was killed here
        self._order: str | None = None  # why this life is to end, if an operator wants it so
        self._resting = False  # nothing is started until `wake`
        self._was_lost = False  # the next start makes up for a death
        self._process: asyncio.subprocess.Process | None = None
        self._deaths = 0  # in a row, without an answer in between
        self._ready_at: float | None = None
        self._heard_at = 0.0
        self._longest_step = 0.0  # seconds between messages while an answer was due; fades
        self._writer: asyncio.StreamWriter | None = None
        self._wake = asyncio.Event()

    def send(self, message: Message) -> None:
        """Send a message to the engine, which must be ready."""
        if self._writer is not None:
            self._writer.write(encode(message))

    def expect_answer(self) -> None:
        """Begin to be impatient: from now on the engine owes an answer."""
        self._heard_at = time.monotonic()

    def forgive(self) -> None:
        """Forget the deaths before: this engine has answered a request."""
        self._deaths = 0

    def retry_now(self) -> None:
        """End a pause before the next start."""
        self._wake.set()

    def restart(self, reason: str) -> None:
        """End the process, if there is one, and start another at once by a new plan."""
        self._resting = False
        self._end(reason)

    def unload(self, reason: str) -> None:
        """End the process and start none until `wake`: its memory is free."""
        self._resting = True
        self._end(reason)

    def wake(self) -> None:
        """Start the engine if it was unloaded."""
        if self._resting:
            self._resting = False
            self._wake.set()

    async def run(self) -> None:
        """Start the engine again whenever it ends, until cancelled."""
        try:
            while True:
                await self._rest()
                await self._pause(await self._live_once())
        finally:
            self.state = "stopped"

    def _end(self, reason: str) -> None:
        self._order = reason
        self._refused = False
        self._wake.set()
        if self._process is None:
            self.state, self.reason = "unloaded" if self._resting else "starting", None
        elif self._process.returncode is None:
            self._process.kill()

    def _forget_orders(self) -> None:
        self._order = None
        self._wake.clear()

    async def _rest(self) -> None:
        while self._resting:
            self.state, self.reason = "unloaded", None
            self._wake.clear()
            await self._wake.wait()
        if self.state == "unloaded":
            self.state = "starting"

    async def _live_once(self) -> float:
        """Live through one process's life; return the seconds to wait before the next."""
        self._forget_orders()
        try:
            load = self._plan()
        except EdgedError as error:
            self._fail(error)
            return NO_PLAN_RETRY_SECONDS
        if self.state == "failed" and not self._refused:
            self.state, self.reason = "starting", None
        try:
            death = await self._live(load)
        except EdgedError as error:
            if self._order is None:
                self._refused = True
                self._fail(error)
                return REFUSED_RETRY_SECONDS
            death = Death(pid=None, code=0, verdict=error.message)
        except OSError as error:
            death = Death(pid=None, code=0, verdict=f"could not be started: {error.strerror}")
        if self._order is not None:
            self.state, self.reason = "unloaded" if self._resting else "starting", None
            self._was_lost = False
            _log.info("the engine was ended", reason=self._order, pid=death.pid)
            self._listener.on_death(self._order, blameless=True)
            return 0.0
        self.state, self.reason = "restarting", death.reason
        fallback = death.signal == signal.SIGILL and load.repack and self._on_illegal_instruction()
        _log.error("the engine died", reason=death.reason, pid=death.pid, without_repacking_next=fallback)
        self._listener.on_death(death.reason, blameless=fallback)
        if fallback:
            return 0.0
        self._deaths += 1
        return BACK_OFF_SECONDS[min(self._deaths, len(BACK_OFF_SECONDS)) - 1]

    def _fail(self, error: EdgedError) -> None:
        if self._told != error.message:
            _log.error("the model can't be loaded", reason=error.message)
        self._told = self.reason = error.message
        self.state = "failed"
        self._listener.on_failed(error)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _live(self, load: Load) -> Death:
        """Start a process, serve it until its end and say how it ended.

        Raises:
            EdgedError: the engine says that it can't load this model.
        """
        ours, its = socket.socketpair()
        self._verdict = None
        with contextlib.ExitStack() as until_started, its:
            until_started.callback(ours.close)
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
            until_started.pop_all()
        self._process, self.pid = process, process.pid
        self.restarts += self._was_lost
        self._was_lost = True
        if self._order is not None:  # it came while the process was being made
            process.kill()
        self._ready_at = None
        self._longest_step = 0.0
        self.load_progress = 0.0
        self._heard_at = time.monotonic()
        reader, self._writer = await asyncio.open_connection(sock=ours)
        logs = asyncio.create_task(forward_log(process.stderr), name="engine log")
        watch = asyncio.create_task(self._watch(process), name="engine watch")
        try:
            self._writer.write(encode(load))
            await self._listen(reader)
            self.state = "restarting"  # what is sent from here on would be lost
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EXIT_SECONDS):
                    await process.wait()
                    await asyncio.shield(logs)  # its last words
        finally:
            self._writer.close()
            self._writer = None
            self._process = self.pid = None
            self.load_progress = None
            if process.returncode is None:
                process.kill()
            code = await process.wait()
            watch.cancel()
            logs.cancel()
        return Death(process.pid, code, self._verdict)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Hand the engine's messages on until it closes its end."""
        decoder = Decoder()
        while True:
            try:
                data = await reader.read(1 << 16)
                messages = decoder.feed(data)
            except (ConnectionError, ProtocolError) as error:
                self._verdict = f"its messages could not be read: {error}"
                return
            if not data:
                return
            now = time.monotonic()
            if self._ready_at is not None and self._listener.is_waiting():
                self._longest_step = max(now - self._heard_at, FADING * self._longest_step)
            self._heard_at = now
            for message in messages:
                self._take(message)

    def _take(self, message: Message) -> None:
        match message:
            case Heartbeat():
                pass
            case Loading():
                self.load_progress = message.share
            case LoadFailed():
                raise EdgedError(ErrorCode.MODEL_UNAVAILABLE, f"the model can't be loaded: {message.message}")
            case Ready() if self._order is not None:
                pass  # it is about to die
            case Ready():
                self.state, self.reason, self.load_progress = "ready", None, None
                self._refused, self._told = False, None
                self._ready_at = time.monotonic()
                _log.info("the engine is ready", load_seconds=round(message.load_seconds, 2), pid=self.pid)
                self._listener.on_ready(message)
            case _:
                self._listener.on_message(message)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Kill an engine that has been silent for too long."""
        while True:
            await asyncio.sleep(min(1.0, self.stall_seconds / 4))
            silent = time.monotonic() - self._heard_at
            if silent > self._patience():
                self._verdict = f"it gave no sign of life for {silent:.1f} s"
                process.kill()
                return

    def _patience(self) -> float:
        if self._ready_at is None:
            return LOAD_STALL_SECONDS
        if not self._listener.is_waiting():
            return self.stall_seconds + HEARTBEAT_GRACE_SECONDS
        # A machine that others keep busy is slow, not hung.
        return max(self.stall_seconds, min(STEPS_OF_PATIENCE * self._longest_step, LOAD_STALL_SECONDS))
