"""The chain of the engine's lives: what is started when, what operators order, and what is told of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Literal

import structlog

from edged.engine.messages import Heartbeat, Load, LoadFailed, Loading, Message, Ready
from edged.engine.supervision.backoff import BackOff
from edged.engine.supervision.life import Life
from edged.engine.supervision.listener import Listener
from edged.engine.supervision.patience import Patience
from edged.engine.supervision.process import COMMAND, Death
from edged.errors import EdgedError, ErrorCode

_log = structlog.get_logger(__name__)

NO_PLAN_RETRY_SECONDS = 5.0  # a model that isn't there is looked for again: its file may have come
REFUSED_RETRY_SECONDS = 60.0  # a model that the library refused is tried again: its file may be another

State = Literal["starting", "ready", "restarting", "failed", "low_memory", "unloaded", "stopped"]


class Supervisor:
    """Keeps one engine process alive.

    Attributes:
        state: what an operator is told. `failed`: the engine can't be started, or died too often;
            requests are refused, and it is tried again. `low_memory`: there is too little for it now.
        reason: why it is restarting or failed.
        restarts: how often a process was started because the one before had died.
        load_progress: the share of the model that is loaded, while it is loading.
        back_off: when it is started again after a death.
        patience: how long it may be silent.
        on_hang: told how many seconds a process was silent that is ended for it.

    Args:
        plan: says what to load; raises EdgedError when nothing can be.
        learn: told of each death that nobody ordered; says whether the next `plan` is without its cause.
        listener: told of messages and of life and death.
        stall_seconds: an engine that owes an answer may be silent for so long, however fast it has been.
        command: the engine's program; a test's may stand in.
    """

    def __init__(
        self,
        *,
        plan: Callable[[], Load],
        learn: Callable[[Death], bool],
        listener: Listener,
        stall_seconds: float,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._plan = plan
        self._learn = learn
        self._listener = listener
        self._command = command
        self.patience = Patience(stall_seconds)
        self.on_hang: Callable[[float], None] = lambda seconds: None
        self.back_off = BackOff()
        self.state: State = "starting"
        self.reason: str | None = None
        self.restarts = 0
        self.load_progress: float | None = None
        self._told: str | None = None  # the failure that the log has last
        self._refused = False  # the library has refused this model
        self._order: str | None = None  # why this life is to end, if an operator wants it so
        self._resting = False  # nothing is started until `wake`
        self._forbidden: str | None = None  # why nothing is started until `allow`
        self._was_lost = False  # the next start makes up for a death
        self._life: Life | None = None
        self._next_try: float | None = None  # when a pause ends, by the monotonic clock
        self._wake = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Return the process, while there is one."""
        return self._life.pid if self._life else None

    @property
    def deaths(self) -> int:
        """Return how often the engine died in a row, without an answered request in between."""
        return self.back_off.deaths

    @property
    def next_try_seconds(self) -> float | None:
        """Return how long it is to the next start, while there is a pause before it."""
        return max(0.0, self._next_try - time.monotonic()) if self._next_try is not None else None

    def send(self, message: Message) -> None:
        """Send a message to the engine, which must be ready."""
        if self._life is not None:
            self._life.send(message)

    def expect_answer(self) -> None:
        """Begin to be impatient: from now on the engine owes an answer."""
        self.patience.expect()

    def forgive(self) -> None:
        """Forget the deaths before: this engine has answered a request."""
        self.back_off.forgive()

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

    def forbid(self, reason: str) -> None:
        """End the process, and start none until `allow`, whoever wants one: there is no memory for it."""
        self._forbidden = reason
        self._end(reason)

    def allow(self) -> None:
        """Let it be started again."""
        self._forbidden = None
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
        self.back_off.forgive()
        self._wake.set()
        if self._life is None:
            self._note_absence()
        else:
            self._life.kill()

    def _forget_orders(self) -> None:
        self._order = None
        self._wake.clear()

    def _note_absence(self) -> None:
        absent: State = "unloaded" if self._resting else "starting"
        self.state, self.reason = "low_memory" if self._forbidden else absent, self._forbidden

    async def _rest(self) -> None:
        while self._resting or self._forbidden is not None:
            self._note_absence()
            self._wake.clear()
            await self._wake.wait()
            self._note_absence()

    async def _pause(self, seconds: float) -> None:
        """Wait before the next start: for so long, until woken, or until there is a reason to try."""
        self._next_try = time.monotonic() + seconds
        while left := self.next_try_seconds:
            if await self._is_woken(min(left, self.back_off.look_seconds)) or self._is_worth_a_try():
                break
        self._next_try = None

    async def _is_woken(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._wake.wait()
        return False

    def _is_worth_a_try(self) -> bool:
        """Say whether what killed the engine again and again may be gone; the count begins anew then."""
        if not self.back_off.has_given_up:
            return False
        with contextlib.suppress(EdgedError):
            if self.back_off.may_cause_be_gone(self._plan()):
                _log.info("the engine is tried again: the cause of its deaths may be gone")
                self.back_off.forgive()
                return True
        return False

    async def _live_once(self) -> float:
        """Live through one process's life; return the seconds to wait before the next."""
        self._forget_orders()
        try:
            load = self._plan()
        except EdgedError as error:
            self._fail(error)
            return NO_PLAN_RETRY_SECONDS
        if not self._refused and not self.back_off.has_given_up and self.state in ("failed", "low_memory"):
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
            self._note_absence()
            self._was_lost = False
            _log.info("the engine was ended", reason=self._order, pid=death.pid)
            self._listener.on_death(self._order, blameless=True)
            return 0.0
        return self._after(death, load)

    def _after(self, death: Death, load: Load) -> float:
        """Tell of a death; return the seconds to wait before the next start."""
        self.state, self.reason = "restarting", death.reason
        is_learnt = self._learn(death)
        _log.error("the engine died", reason=death.reason, pid=death.pid, without_cause_next=is_learnt)
        self._listener.on_death(death.reason, blameless=is_learnt)
        if is_learnt:
            return 0.0
        pause = self.back_off.died(load, death)
        if self.back_off.has_given_up:
            reason = self.back_off.explain(death)
            error = EdgedError(ErrorCode.MODEL_UNAVAILABLE, reason, retry_after_s=pause)
            self._fail(error, "the engine is given up for a while")
        return pause

    def _fail(self, error: EdgedError, event: str = "the model can't be loaded") -> None:
        state: State = "low_memory" if error.code is ErrorCode.LOW_MEMORY else "failed"
        if self.state != state or (state == "failed" and self._told != error.message):  # figures change
            _log.error(event, reason=error.message)
        self.state = state
        self._told = self.reason = error.message
        self._listener.on_failed(error)

    async def _live(self, load: Load) -> Death:
        """Start a process, serve it until its end and say how it ended.

        Raises:
            EdgedError: the engine says that it can't load this model.
            OSError: it can't be started.
        """
        life = self._life = Life(
            self.patience,
            self._listener.is_waiting,
            lambda seconds: self.on_hang(seconds),  # whoever is to be told by then
            self._command,
        )
        try:
            await life.start(load)
            self.restarts += self._was_lost
            self._was_lost = True
            self.load_progress = 0.0
            try:
                await life.listen(self._take)
                self.state = "restarting"  # what is sent from here on would be lost
                await life.wind_down()
            finally:
                death = await life.end()
        finally:
            self._life = self.load_progress = None
        return death

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
                _log.info("the engine is ready", load_seconds=round(message.load_seconds, 2), pid=self.pid)
                self._listener.on_ready(message)
            case _:
                self._listener.on_message(message)
