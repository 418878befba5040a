"""Has the engine loaded anew in another size, between requests, when memory has become less or more."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine

from edged.core import Core
from edged.engine.plan import EnginePlan
from edged.errors import EdgedError

GROW_SECONDS, MOST_GROW_SECONDS = 60.0, 600.0
"""How long memory must suffice before the engine is loaded larger: at first, and twice as long each time that
it was made smaller of late."""
OF_LATE_SECONDS = 1200.0
WORTH_IT = 1.1
"""How many times as much the engine must take than before, to be loaded anew for it."""


class Refit:
    """Loads smaller or larger; what was asked for last counts.

    Args:
        core: whose engine it is.
        plan: returns the plan that holds when so many bytes are free that are taken now.
        freed_bytes: says what the engine's end would free.
    """

    def __init__(self, core: Core, plan: Callable[[int], EnginePlan], freed_bytes: Callable[[], int]) -> None:
        self._core = core
        self._plan = plan
        self._freed_bytes = freed_bytes
        self._task: asyncio.Task[None] | None = None
        self._shrunk: deque[float] = deque(maxlen=8)  # when it was made smaller, by the loop's clock

    def shrink(self) -> None:
        """Load smaller as soon as nothing runs; nothing is begun before."""
        self._start(self._shrink())

    def grow(self) -> None:
        """Load larger once memory has sufficed for long, and nobody asks for anything."""
        self._start(self._grow())

    def cancel(self) -> None:
        """Leave the size as it is."""
        if self._task is not None:
            self._task.cancel()

    def _start(self, change: Coroutine[None, None, None]) -> None:
        self.cancel()
        self._task = asyncio.create_task(change, name="refit")

    async def _shrink(self) -> None:
        core = self._core
        with core.engine.held():
            await core.dispatcher.drained()
            await core.direct.wait()
            before, plan = core.engine.plan, await self._planned()
            if before is not None and plan is not None and _size(plan) < _size(before):
                self._shrunk.append(asyncio.get_running_loop().time())
                self._restart(plan, "the engine is made smaller: memory is short")

    async def _grow(self) -> None:
        core = self._core
        now = asyncio.get_running_loop().time()
        shrunk = sum(now - at < OF_LATE_SECONDS for at in self._shrunk)
        await asyncio.sleep(min(GROW_SECONDS * 2.0 ** max(0, shrunk - 1), MOST_GROW_SECONDS))
        while waiting := core.in_hand():
            await waiting[0].wait()
        await core.direct.wait()
        with core.engine.held():
            before, plan = core.engine.plan, await self._planned()
            if before is not None and plan is not None and _size(plan) >= WORTH_IT * _size(before):
                self._restart(plan, "the engine is made larger: there is memory again")

    async def _planned(self) -> EnginePlan | None:
        """Return the plan of an engine in place of the one that serves; None where there is none."""
        if self._core.engine.state != "ready":
            return None
        try:
            return await asyncio.to_thread(self._plan, self._freed_bytes())
        except EdgedError:  # even the least does not fit
            return None

    def _restart(self, plan: EnginePlan, reason: str) -> None:
        load = plan.load
        self._core.events.emit(
            "engine_refit",
            reason=reason,
            context=load.context,
            sequences=load.sequences,
            kv_type=load.kv_type,
        )
        self._core.engine.restart(reason)


def _size(plan: EnginePlan) -> int:
    return plan.memory.needed_bytes
