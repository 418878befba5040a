"""The life of the engine's process: start, listen, notice its death or silence, start again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

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
from edged.errors import EdgedError, ErrorCode

_log = structlog.get_logger(__name__)
_engine_log = structlog.get_logger("edged.engine.child")

# -P: a stray module in the working directory must not become part of the engine.
COMMAND = (sys.executable, "-P", "-m", "edged.engine.worker")
# The child's environment is this and no more: OMP_WAIT_POLICY or GOMP_SPINCOUNT would ruin libgomp's waiting
# (four times slower, or a core burnt when idle), and the daemon's secrets are none of its business.
PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "PYTHONHOME",
)

EXIT_SECONDS = 2.0  # from the end of the messages to the end of the process
HEARTBEAT_GRACE_SECONDS = 10.0  # the engine's heartbeat at rest comes every 5 s
LOAD_STALL_SECONDS = 180.0  # a cold card of 10 MB/s reads 1.8 GB in that time
BACK_OFF_SECONDS = (0.0, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
STEPS_OF_PATIENCE = 10
FADING = 0.98
NO_PLAN_RETRY_SECONDS = 5.0  # a model that isn't there is looked for again: its file may have come
REFUSED_RETRY_SECONDS = 60.0  # a model that the library refused is tried again: its file may be another

State = Literal["starting", "ready", "restarting", "failed", "stopped"]


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
        restarts: how often a process was started after the first.
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
        self.restarts = -1
        self.load_progress: float | None = None
        self._told: str | None = None  # the failure that the log has last
        self._refused = False  # the library has refused this model
        self._verdict: str | None = None  # why the process was killed here
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

    async def run(self) -> None:
        """Start the engine again whenever it ends, until cancelled."""
        try:
            while True:
                await self._pause(await self._live_once())
        finally:
            self.state = "stopped"

    async def _live_once(self) -> float:
        """Live through one process's life; return the seconds to wait before the next."""
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
            self._refused = True
            self._fail(error)
            return REFUSED_RETRY_SECONDS
        except OSError as error:
            death = Death(pid=None, code=0, verdict=f"could not be started: {error.strerror}")
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
        self._wake.clear()
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
        self.pid = process.pid
        self.restarts += 1
        self._ready_at = None
        self._longest_step = 0.0
        self.load_progress = 0.0
        self._heard_at = time.monotonic()
        reader, self._writer = await asyncio.open_connection(sock=ours)
        logs = asyncio.create_task(_forward_log(process.stderr), name="engine log")
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
            self.pid = None
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


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended.

    Attributes:
        pid: the process; None if it could not be started.
        code: its exit code, or the negative number of the signal that killed it.
        verdict: why the supervisor ended it, if it did.
    """

    pid: int | None
    code: int
    verdict: str | None

    @property
    def signal(self) -> int | None:
        """Return the number of the signal that killed it."""
        return -self.code if self.code < 0 else None

    @property
    def reason(self) -> str:
        """Return the end in words."""
        if self.verdict:
            return self.verdict
        if self.signal is None:
            return f"ended with exit code {self.code}; the log says more"
        name = signal.Signals(self.signal).name if self.signal in set(signal.Signals) else str(self.signal)
        hint = {
            "SIGILL": " (a kernel that this processor can't run)",
            "SIGKILL": " (out of memory, or by hand)",
        }
        return f"killed by {name}{hint.get(name, '')}"


def child_environment() -> dict[str, str]:
    """Return the environment that the engine gets."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    # Without this ggml_abort starts gdb where that is installed.
    return {**passed, "GGML_NO_BACKTRACE": "1"}


async def _forward_log(pipe: asyncio.StreamReader | None) -> None:
    """Log the child's lines: JSON with a level, or whatever a dying library wrote."""
    assert pipe is not None
    while True:
        try:
            line = await pipe.readline()
        except ValueError:  # longer than the pipe's limit: what is left of it comes as a line of its own
            continue
        if not line:
            return
        fields = _log_fields(line)
        getattr(_engine_log, fields.pop("level"))(fields.pop("event"), **fields)


def _log_fields(line: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError, KeyError, AttributeError):
        fields = json.loads(line)
        if fields["level"] in ("debug", "info", "warning", "error") and isinstance(fields["event"], str):
            return {str(key): value for key, value in fields.items()}
    return {"level": "warning", "event": line.decode(errors="replace").rstrip(), "source": "stderr"}
