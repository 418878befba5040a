"""An engine that misbehaves on purpose (see fake_worker.py), and who watches it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from edged.engine.client import Engine
from edged.engine.generation import Generation, Prompt
from edged.engine.messages import Delta, Load
from edged.engine.plan import EnginePlan
from edged.engine.quirks import Quirks
from edged.engine.supervision.backoff import BackOff
from edged.errors import EdgedError, ErrorCode

COMMAND = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))


class Watcher:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.readings: list[tuple[int, int]] = []
        self.error: EdgedError | None = None
        self.ended = asyncio.Event()
        self.begun = asyncio.Event()

    def on_reading(self, done: int, cached: int) -> None:
        self.readings.append((done, cached))
        self.begun.set()

    def on_delta(self, delta: Delta) -> None:
        self.deltas.append(delta)
        if delta.text:
            self.begun.set()
        if delta.finish:
            self.ended.set()

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    def on_failed(self, error: EdgedError) -> None:
        self.error = error
        self.ended.set()


class Model:
    """Which behaviour the next engine is to have; the tests change it."""

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.ooms = 0  # that were to be remembered

    @contextlib.contextmanager
    def changed_to(self, behaviour: str) -> Iterator[None]:
        """Change it, and back again if the context ends by a fault."""
        before, self.behaviour = self.behaviour, behaviour
        try:
            yield
        except BaseException:
            self.behaviour = before
            raise


@asynccontextmanager
async def running(
    behaviour: str | Model,
    quirks: Quirks | None = None,
    *,
    stall: float = 30,
    back_off: BackOff | None = None,
    directory: Path = Path("/"),
) -> AsyncIterator[Engine]:
    """Run an engine that behaves so; its model file is looked for in `directory`."""
    model = behaviour if isinstance(behaviour, Model) else Model(behaviour)

    def plan() -> EnginePlan:
        if model.behaviour == "missing":
            raise EdgedError(ErrorCode.MODEL_UNAVAILABLE, "there is no file")
        if model.behaviour == "starved":
            raise EdgedError(ErrorCode.LOW_MEMORY, "12 MB are available")
        load = Load(
            str(directory / f"{model.behaviour}.gguf"),
            1024,
            2,
            64,
            64,
            1,
            1,
            "f16",
            False,
            True,
            False,
            100,
            0,
        )
        fault = quirks.repack_fault("here") if quirks else None

        def remember() -> bool:
            assert quirks is not None
            quirks.remember_repack_fault("here", "died of SIGILL")
            return True

        def remember_oom() -> None:
            model.ooms += 1

        loaded = replace(load, repack=fault is None)
        key = f"key of {model.behaviour}"
        return cast(
            EnginePlan,
            SimpleNamespace(key=key, load=loaded, remember_repack_fault=remember, remember_oom=remember_oom),
        )

    engine = Engine(plan, stall_seconds=stall, command=COMMAND)
    if back_off is not None:
        engine.supervisor.back_off = back_off
    task = asyncio.create_task(engine.run())
    try:
        yield engine
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def generation(watcher: Watcher, produced: list[int] | None = None) -> Generation:
    sampling: dict[str, Any] = {}
    return Generation(Prompt([1, 2, 3], 2), sampling, 9, [], None, watcher, produced=produced or [])


async def changed(engine: Engine, state: str) -> None:
    """Wait until the engine tells of a change to this state."""
    there = asyncio.Event()

    def on_change() -> None:
        if engine.state == state:
            there.set()

    engine.on_change = on_change
    on_change()
    await there.wait()
