"""The supervisor against an engine that hangs or dies again and again on purpose (see fake_worker.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from edged.engine.client import Engine
from edged.engine.generation import Prompt
from edged.engine.supervision.backoff import BackOff
from edged.engine.supervision.oom import Memory
from edged.errors import EdgedError, ErrorCode
from tests.engine.misbehaving import Model, Watcher, changed, generation, running

LONG = 3600.0
DEATHS = 2


class Machine:
    """Has so much memory."""

    available = 100

    def __call__(self) -> Memory:
        return Memory(1000, self.available)


def back_off(
    pause: float = LONG, deaths: int = DEATHS, memory: Machine | None = None, look: float = 0.01
) -> BackOff:
    """Return one that gives up after a few deaths, looks often, and pauses for so long once it has."""
    pauses = [*[0.0] * (deaths - 1), pause]
    return BackOff(pauses=pauses, most_deaths=deaths, look_seconds=look, memory=memory or Machine())


async def told(engine: Engine, condition: Callable[[], bool]) -> None:
    """Wait until the engine tells of a change and the condition holds."""
    there = asyncio.Event()

    def on_change() -> None:
        if condition():
            there.set()

    engine.on_change = on_change
    on_change()
    await there.wait()


# --- a hang ---


async def test_a_hung_engines_stacks_are_logged_before_it_is_killed() -> None:
    structlog.reset_defaults()
    with capture_logs() as logs:
        async with running("hangs", stall=0.3) as engine:
            watcher = Watcher()
            engine.generate(generation(watcher))
            await watcher.ended.wait()
    events = [entry["event"] for entry in logs]
    hang = logs[events.index("the engine hangs")]
    assert hang["silent_seconds"] >= 0.3
    first = logs[events.index("one of the hung engine's threads")]
    assert (first["pid"], first["tid"], first["state"]) == (hang["pid"], str(hang["pid"]), "S")
    stacks = [entry["frames"] for entry in logs if entry["event"] == "stack of one of the engine's threads"]
    assert any("hang" in frames[0] and "main" in frames[1] for frames in stacks), "native code holds the GIL"
    assert any("_read" in frame for frames in stacks for frame in frames), "the other thread's, too"
    assert events.index("the engine hangs") < events.index("the engine died")


async def test_an_engine_that_rests_while_an_answer_is_due_is_replaced() -> None:
    async with running("forgets", stall=0.3) as engine:
        watcher = Watcher()
        engine.generate(generation(watcher))
        await watcher.ended.wait()
        assert watcher.error is not None
        assert "no sign of life" in watcher.error.message


# --- death again and again ---


async def test_an_engine_that_dies_again_and_again_is_given_up_and_requests_are_refused() -> None:
    async with running("dies-at-load", back_off=back_off()) as engine:
        watcher = Watcher()
        engine.generate(generation(watcher))
        with pytest.raises(EdgedError) as refused:
            await engine.prepare(None, "hi")
        await watcher.ended.wait()
        for error in (refused.value, watcher.error):
            assert error is not None
            assert error.code is ErrorCode.MODEL_UNAVAILABLE
            assert error.retry_after_s == LONG
            assert f"died {DEATHS} times in a row" in error.message
            assert "exit code 3" in error.message
        supervisor = engine.supervisor
        assert (engine.state, supervisor.deaths, supervisor.restarts) == ("failed", DEATHS, DEATHS - 1)
        assert supervisor.next_try_seconds is not None
        assert LONG - 60 < supervisor.next_try_seconds <= LONG
        assert supervisor.pid is None


async def test_an_engine_that_kills_itself_over_every_request_is_given_up_too() -> None:
    async with running("dies-of-requests", back_off=back_off(deaths=3)) as engine:
        first, second = Watcher(), Watcher()
        engine.generate(generation(first))
        await first.ended.wait()  # it ran at two deaths
        engine.generate(generation(second))
        await second.ended.wait()
        assert second.error is not None
        assert second.error.code is ErrorCode.MODEL_UNAVAILABLE
        assert engine.state == "failed"


async def test_it_stays_failed_while_it_is_tried() -> None:
    model = Model("dies-at-load")
    async with running(model, back_off=back_off(look=LONG)) as engine:
        await changed(engine, "failed")
        model.behaviour = "loads-for-ever"
        engine.supervisor.retry_now()
        while engine.supervisor.load_progress is None:
            await asyncio.sleep(0)  # nothing tells of it
        assert engine.state == "failed", "who asks now is refused, not kept waiting"


async def test_it_is_tried_from_time_to_time_and_serves_when_that_succeeds() -> None:
    model = Model("dies-at-load")
    async with running(model, back_off=back_off(0.05)) as engine:
        await changed(engine, "failed")
        states: list[str] = []

        def is_ready() -> bool:
            states.append(engine.state)
            return engine.state == "ready"

        deaths = engine.supervisor.deaths
        await told(engine, lambda: is_ready() or engine.supervisor.deaths == deaths + 2)
        model.behaviour = "serves"
        await told(engine, is_ready)
        assert set(states) == {"restarting", "failed", "ready"}
        assert engine.supervisor.reason is None
        assert await engine.prepare(None, "hi") == Prompt([1, 2, 3], 2)


async def serves_again(engine: Engine, model: Model) -> None:
    await changed(engine, "ready")
    watcher = Watcher()
    engine.generate(generation(watcher))
    await watcher.ended.wait()
    assert watcher.text == "seven"
    assert (engine.supervisor.deaths, engine.supervisor.next_try_seconds) == (0, None)


async def test_another_model_is_tried_without_being_asked() -> None:
    model = Model("dies-at-load")
    async with running(model, back_off=back_off()) as engine:
        await changed(engine, "failed")
        model.behaviour = "serves"
        await serves_again(engine, model)


async def test_another_file_at_the_same_place_is_tried(tmp_path: Path) -> None:
    file = tmp_path / "dies-while-broken.gguf"
    file.write_text("broken")
    model = Model(file.stem)
    async with running(model, back_off=back_off(), directory=tmp_path) as engine:
        await changed(engine, "failed")
        file.write_text("whole")
        await serves_again(engine, model)


async def test_more_memory_is_tried_after_deaths_by_sigkill() -> None:
    machine = Machine()
    model = Model("is-killed")
    async with running(model, back_off=back_off(memory=machine)) as engine:
        await changed(engine, "failed")
        assert engine.supervisor.reason is not None
        assert "killed by SIGKILL" in engine.supervisor.reason
        deaths = engine.supervisor.restarts
        machine.available += 100
        await changed(engine, "restarting")
        assert engine.supervisor.restarts > deaths


async def test_an_operators_command_tries_at_once() -> None:
    async with running("dies-at-load", back_off=back_off()) as engine:
        await changed(engine, "failed")
        restarts = engine.supervisor.restarts
        engine.restart()
        assert engine.state == "starting"
        await changed(engine, "failed")
        assert engine.supervisor.restarts == restarts + DEATHS, "it is given all its tries again"


async def test_a_model_that_is_gone_when_it_is_looked_for_is_waited_for() -> None:
    model = Model("dies-at-load")
    async with running(model, back_off=back_off()) as engine:
        await changed(engine, "failed")
        model.behaviour = "missing"
        engine.supervisor.retry_now()
        await told(engine, lambda: engine.supervisor.reason == "there is no file")
        model.behaviour = "serves"
        engine.supervisor.retry_now()
        await serves_again(engine, model)
