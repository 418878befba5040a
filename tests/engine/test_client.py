"""The engine's client and supervisor against an engine that misbehaves on purpose (see fake_worker.py)."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog
from structlog.testing import capture_logs

from edged.engine.client import Engine
from edged.engine.generation import Generation
from edged.engine.messages import Delta, Load
from edged.engine.plan import EnginePlan
from edged.engine.quirks import Quirks
from edged.errors import EdgedError, ErrorCode

COMMAND = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))


class Watcher:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.readings: list[int] = []
        self.error: EdgedError | None = None
        self.ended = asyncio.Event()
        self.begun = asyncio.Event()

    def on_reading(self, done: int) -> None:
        self.readings.append(done)
        self.begun.set()

    def on_delta(self, delta: Delta) -> None:
        self.deltas.append(delta)
        if delta.finish:
            self.ended.set()

    def on_failed(self, error: EdgedError) -> None:
        self.error = error
        self.ended.set()


@asynccontextmanager
async def running(behaviour: str, quirks: Quirks | None = None, stall: float = 30) -> AsyncIterator[Engine]:
    """Run an engine that behaves so."""
    load = Load(f"/{behaviour}.gguf", 1024, 2, 64, 64, 1, 1, "f16", False, True, False, 100)

    def plan() -> EnginePlan:
        fault = quirks.repack_fault("here") if quirks else None

        def remember() -> bool:
            assert quirks is not None
            quirks.remember_repack_fault("here", "died of SIGILL")
            return True

        loaded = replace(load, repack=fault is None)
        return cast(EnginePlan, SimpleNamespace(key="model", load=loaded, remember_repack_fault=remember))

    engine = Engine(plan, stall_seconds=stall, command=COMMAND)
    task = asyncio.create_task(engine.run())
    try:
        yield engine
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def generation(watcher: Watcher, produced: list[int] | None = None) -> Generation:
    sampling: dict[str, Any] = {}
    return Generation([1, 2, 3], sampling, 9, [], None, watcher, produced=produced or [])


async def test_prompts_are_prepared_and_answered() -> None:
    async with running("serves") as engine:
        assert await engine.prepare([{"role": "user", "content": "hi"}]) == [1, 2, 3]
        watcher = Watcher()
        asked = generation(watcher)
        engine.generate(asked)
        await watcher.ended.wait()
        assert [d.text for d in watcher.deltas] == ["seven"]
        assert asked.produced == [7]
        assert not engine.is_waiting()


async def test_childs_lines_come_through_the_log_by_level() -> None:
    structlog.reset_defaults()
    with capture_logs() as logs:
        async with running("serves") as engine:
            await engine.prepare(None, "hi")
    lines = [(e["log_level"], e["event"], e.get("place"), e.get("source")) for e in logs]
    assert ("warning", "a line of the child", "fake", None) in lines
    assert ("warning", "what a dying library writes", None, "stderr") in lines


async def test_illegal_kernel_is_survived_without_repacking_and_remembered(tmp_path: Path) -> None:
    path = tmp_path / "quirks.json"
    async with running("bad-kernel", Quirks(path)) as engine:
        assert await engine.prepare(None, "hi") == [1, 2, 3]
        assert engine.plan is not None
        assert engine.plan.load.repack is False
        assert engine.supervisor.restarts == 1
    async with running("bad-kernel", Quirks(path)) as engine:
        await engine.prepare(None, "hi")
        assert engine.supervisor.restarts == 0, "the next start knows it"


async def test_hung_engine_is_replaced_and_its_request_ends_clearly() -> None:
    async with running("hangs", stall=0.3) as engine:
        watcher = Watcher()
        engine.generate(generation(watcher))
        await watcher.ended.wait()
        assert watcher.error is not None
        assert watcher.error.code is ErrorCode.ENGINE_CRASHED
        assert "no sign of life" in watcher.error.message
        assert engine.supervisor.restarts >= 1


async def test_request_that_kills_the_engine_twice_is_ended_and_others_are_served() -> None:
    async with running("dies-of-requests") as engine:
        watcher = Watcher()
        engine.generate(generation(watcher))
        await watcher.ended.wait()
        assert watcher.error is not None
        assert "SIGABRT" in watcher.error.message
        assert await engine.prepare(None, "still there?") == [1, 2, 3]


async def test_model_that_is_refused_fails_what_waits_with_the_librarys_words() -> None:
    async with running("refuses") as engine:
        with pytest.raises(EdgedError, match="unknown model architecture") as refused:
            await engine.prepare(None, "hi")
        assert refused.value.code is ErrorCode.MODEL_UNAVAILABLE
        assert engine.state == "failed"


async def test_engine_that_dies_at_every_start_is_backed_off_and_stated() -> None:
    async with running("dies-at-load") as engine:
        died = asyncio.Event()
        deaths = 0

        def on_change() -> None:
            nonlocal deaths
            deaths += 1
            if deaths == 2:
                died.set()

        engine.on_change = on_change
        await died.wait()
        assert engine.state == "restarting"
        assert engine.supervisor.reason == "ended with exit code 3; the log says more"


async def test_cancel_ends_a_generation_wherever_it_is() -> None:
    async with running("keeps-silent") as engine:
        here = Watcher()
        waiting = generation(here)
        engine.generate(waiting)  # the engine is not ready yet
        engine.cancel(waiting)
        assert here.deltas[-1].finish == "cancelled"
        await engine.prepare(None, "ready now")
        there = Watcher()
        running_one = generation(there)
        engine.generate(running_one)
        await there.begun.wait()
        engine.cancel(running_one)
        engine.cancel(running_one)
        await there.ended.wait()
        assert [d.finish for d in there.deltas] == ["cancelled"]
        assert not engine.is_waiting()
